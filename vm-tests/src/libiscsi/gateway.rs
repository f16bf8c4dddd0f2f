//! A gateway in the guest: the kernel's SCSI target exports each of the guest's disks, by its passthrough back store (pscsi), as an iSCSI
//! target of its own on the loopback.
//!
//! ```text
//! iscsi-test-cu ─┬─ iSCSI ─► target 0 ─► pscsi ─► HBA 0 ─┐
//!                └─ iSCSI ─► target 1 ─► pscsi ─► HBA 1 ─┴─► one logical unit
//! ```
//!
//! Commands pass such a gateway unchanged, also those for reservations, and the unit sees two I_T nexuses. What ends at the gateway are
//! iSCSI's own sessions and task management: no logout and no reset gets through.

use crate::guest::Guest;
use crate::{Error, Result};

/// The guest's gateway.
#[derive(Debug)]
pub struct Gateway {
    targets: u32,
}

impl Gateway {
    /// Prepares the guest, which must be one that [boots Debian's packages](Guest::start_boot_debian).
    ///
    /// # Errors
    /// When the kernel has no SCSI target.
    pub fn open(guest: &mut Guest) -> Result<Gateway> {
        guest.sh(
            "mount -t configfs config /sys/kernel/config && ip link set lo up && [ -d /sys/kernel/config/target ]",
        )?;
        Ok(Gateway { targets: 0 })
    }

    /// Exports a disk (`/dev/sda`, ...), which nobody in the guest may have open for writing. Returns the unit's URL.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn export(&mut self, guest: &mut Guest, disk: &str) -> Result<String> {
        let number = self.targets;
        self.targets += 1;
        let (name, port) = (format!("iqn.2000-01.test:{number}"), 3260 + number);
        guest.sh(&format!(
            "set -e
            disk={disk}
            IFS=: read -r host channel id lun <<< $(basename $(readlink -f /sys/block/${{disk#/dev/}}/device))
            cd /sys/kernel/config/target
            mkdir -p core/pscsi_{number}/disk
            echo scsi_host_id=$host,scsi_channel_id=$channel,scsi_target_id=$id,scsi_lun_id=$lun > core/pscsi_{number}/disk/control
            echo $disk > core/pscsi_{number}/disk/udev_path
            echo 1 > core/pscsi_{number}/disk/enable
            # The kernel does not answer PERSISTENT RESERVE in the disk's stead.
            [ $(cat core/pscsi_{number}/disk/attrib/pgr_support) = 0 ]
            group=iscsi/{name}/tpgt_1
            mkdir -p $group/lun/lun_0 $group/np/127.0.0.1:{port}
            ln -s $PWD/core/pscsi_{number}/disk $group/lun/lun_0/disk
            echo 0 > $group/attrib/authentication
            echo 1 > $group/attrib/generate_node_acls
            echo 0 > $group/attrib/demo_mode_write_protect
            echo 1 > $group/enable"
        ))?;
        Ok(format!("iscsi://127.0.0.1:{port}/{name}/0"))
    }

    /// Makes a disk of the kernel's own target, seen by two HBAs of its own: the yardstick. Returns both its names in the guest.
    ///
    /// # Errors
    /// When the kernel refuses, or finds no disk.
    pub fn own_disk(&self, guest: &mut Guest, bytes: u64) -> Result<[String; 2]> {
        let disks = guest.sh(&format!(
            "set -e
            cd /sys/kernel/config/target
            # Where it keeps what persists through power loss: a reservation is refused when it cannot.
            mkdir -p /var/target/pr /etc/target/pr core/fileio_0/own
            truncate -s {bytes} /tmp/own.img
            echo fd_dev_name=/tmp/own.img,fd_dev_size={bytes} > core/fileio_0/own/control
            echo 1 > core/fileio_0/own/enable
            for n in 0 1; do
                group=loopback/naa.600140500000000$n/tpgt_1
                mkdir -p $group/lun/lun_0
                echo naa.600140510000000$n > $group/nexus
                ln -s $PWD/core/fileio_0/own $group/lun/lun_0/disk
            done
            for i in $(seq 100); do
                disks=$(grep -l ^FILEIO /sys/block/sd*/device/model | cut -d / -f 4 | sed s,^,/dev/,)
                [ $(echo $disks | wc -w) = 2 ] && break
                sleep 0.1
            done
            echo $disks"
        ))?;
        let disks: Vec<String> = disks.split_whitespace().map(str::to_owned).collect();
        disks.try_into().map_err(|disks| Error::new(format!("the guest's own disk has the names {disks:?}")))
    }
}
