//! REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS parameter data (SPC-4 6.36.2).

use crate::scsi::{ParameterData, TaskManagementFunction};

/// The functions that are supported; with `repd` in the extended format, which indicates no timeouts.
pub fn report_task_management_functions(repd: bool, supported: &[TaskManagementFunction]) -> ParameterData {
    let mut flags = [0; 2];
    for function in supported {
        let (byte, bit) = match function {
            TaskManagementFunction::AbortTask => (0, 0x80),
            TaskManagementFunction::AbortTaskSet => (0, 0x40),
            TaskManagementFunction::ClearAca => (0, 0x20),
            TaskManagementFunction::ClearTaskSet => (0, 0x10),
            TaskManagementFunction::LogicalUnitReset => (0, 0x08),
            TaskManagementFunction::QueryTask => (0, 0x04),
            TaskManagementFunction::QueryAsyncEvent => (1, 0x04),
            TaskManagementFunction::QueryTaskSet => (1, 0x02),
            TaskManagementFunction::ItNexusReset => (1, 0x01),
        };
        flags[byte] |= bit;
    }
    let mut data = ParameterData::new();
    data.raw(&flags).u8(0);
    data.counted_u8(|data| {
        if repd {
            data.zeros(12);
        }
    });
    data
}

#[cfg(test)]
mod tests {
    use super::TaskManagementFunction as Function;
    use super::*;

    /// SPC-4 tables 264 and 265.
    #[test]
    fn both_formats() {
        let supported = [Function::AbortTask, Function::LogicalUnitReset, Function::QueryTask, Function::ItNexusReset];
        let basic = report_task_management_functions(false, &supported);
        assert_eq!(basic.bytes(), [0x8c, 0x01, 0, 0]);
        let extended = report_task_management_functions(true, &supported);
        assert_eq!(extended.bytes(), [0x8c, 0x01, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn every_function_has_its_own_bit() {
        let all = [
            Function::AbortTask,
            Function::AbortTaskSet,
            Function::ClearAca,
            Function::ClearTaskSet,
            Function::LogicalUnitReset,
            Function::QueryTask,
            Function::QueryAsyncEvent,
            Function::QueryTaskSet,
            Function::ItNexusReset,
        ];
        let data = report_task_management_functions(false, &all);
        assert_eq!(data.bytes(), [0xfc, 0x07, 0, 0]);
    }
}
