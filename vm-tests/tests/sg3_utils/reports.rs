//! What the tools decode: INQUIRY and its pages, capacity, mode and log pages, the commands, sense data.

use crate::unit::Unit;
use crate::{Lab, UNITS};
use std::collections::{BTreeMap, BTreeSet};
use vm_tests::said::{never_says, number, says};
use vm_tests::{Context, Result, paths};

/// sg_inq, sg_readcap and sg_turs.
pub fn identity(lab: &mut Lab, unit: &Unit) -> Result<()> {
    let inquiry = lab.sh(unit, "sg_turs $D && sg_inq -d $D")?;
    says(&inquiry, &["PQual=0 PDT=0", "version=0x06 [SPC-4]", "CmdQue=1", "TPGS=3", "3PC=1"])?;
    says(&inquiry, &[&format!("RMB={}", u8::from(unit.removable))])?;
    says(&inquiry, &["SAM-5", "SPC-4 (", "SBC-3", "SRP"])?;
    says(&inquiry, &[&format!("Vendor identification: {}", unit.vendor)])?;
    says(&inquiry, &[&format!("Product identification: {} Product revision level: {}", unit.product, unit.revision)])?;
    says(&inquiry, &[&format!("Unit serial number: {}", unit.serial)])?;

    let capacity = lab.sh(unit, "sg_readcap -l $D && sg_readcap $D")?;
    let provisioned = u8::from(unit.unmaps());
    says(&capacity, &[&format!("lbpme={provisioned}, lbprz={provisioned}"), "prot_en=0", "Lowest aligned LBA=0"])?;
    let exponent = (unit.physical / unit.block).ilog2();
    says(&capacity, &[&format!("Logical blocks per physical block exponent={exponent}")])?;
    // READ CAPACITY (10) says it again.
    for (label, value) in [("Logical block length=", unit.block), ("Number of logical blocks=", unit.blocks())] {
        let said: Vec<&str> = capacity.split(label).skip(1).collect();
        assert_eq!(said.len(), 2, "{capacity}");
        for each in said {
            assert_eq!(number(each, "")?, value.into(), "{capacity}");
        }
    }
    says(&capacity, &[&format!("Device size: {} bytes", unit.bytes)])
}

/// sg_vpd -a: every page that the list of pages names is there and can be decoded, and says what was configured.
pub fn pages(lab: &mut Lab, unit: &Unit) -> Result<()> {
    let all = lab.sh(unit, "sg_vpd -a $D")?;
    never_says(&all, &["unable to decode", "only hex", "malformed", "illegal request"])?;
    for name in ["[sv]", "[sn]", "[di]", "[ei]", "[mpp]", "[sp]", "[tpc]", "[bl]", "[bdc]", "[lbpv]"] {
        says(&all, &[name])?;
    }
    says(&all, &[&format!("Unit serial number: {}", unit.serial)])?;

    let designation = lab.sh(unit, "sg_vpd -p di $D")?;
    let t10 = format!("vendor id: {} vendor specific: {} {}", unit.vendor, unit.product, unit.serial);
    says(&designation, &["designator type: NAA", "designator type: T10 vendor identification", &t10])?;
    match unit.naa {
        Some(naa) => says(&designation, &[&format!("0x{naa:016x}")])?,
        // Made from the serial number: locally assigned (SPC-4 7.8.6.6.4).
        None => says(&designation, &["code set: Binary 0x3"])?,
    }
    says(&designation, &["SCSI RDMA Protocol (SRP)", "Relative target port: 0x1", "Target port group: 0x1"])?;

    let limits = lab.sh(unit, "sg_vpd -p bl $D")?;
    says(&limits, &["Write same non-zero (WSNZ): 0"])?;
    let aligned = i128::from(unit.physical / unit.block);
    let granularity = if aligned > 1 { aligned } else { 0 };
    assert_eq!(number(&limits, "Optimal transfer length granularity:")?, granularity, "{limits}");
    assert_ne!(number(&limits, "Maximum compare and write length:")?, 0, "{limits}");
    let count = number(&limits, "Maximum unmap LBA count:")?;
    let descriptors = number(&limits, "Maximum unmap block descriptor count:")?;
    assert_eq!((count != 0, descriptors != 0), (unit.unmaps(), unit.unmaps()), "{limits}");

    let rotation = match unit.rotation {
        0 => "Medium rotation rate is not reported".to_owned(),
        1 => "Non-rotating medium".to_owned(),
        rate => format!("Nominal rotation rate: {rate} rpm"),
    };
    says(&lab.sh(unit, "sg_vpd -p bdc $D")?, &[&rotation])?;

    let provisioning = lab.sh(unit, "sg_vpd -p lbpv $D")?;
    for label in ["(LBPU):", "(LBPWS):", "(LBPWS10):", "(LBPRZ):"] {
        assert_eq!(number(&provisioning, label)?, unit.unmaps().into(), "{label} {provisioning}");
    }
    let kind = if unit.unmaps() { 2 } else { 0 };
    assert_eq!(number(&provisioning, "Provisioning type:")?, kind, "{provisioning}");
    Ok(())
}

/// sg_modes: the header, the block descriptor, and the bits that were configured, now and as the default.
pub fn modes(lab: &mut Lab, unit: &Unit) -> Result<()> {
    let caching = |page: &[u8]| page[2] & 0x04 != 0;
    let descriptor_sense = |page: &[u8]| page[2] & 0x04 != 0;
    for control in [0, 2] {
        let pages = lab.sh(unit, &format!("sg_modes -a -a -c {control} $D"))?;
        says(&pages, &[&format!("WP={}, DpoFua=1", u8::from(unit.read_only))])?;
        assert_eq!(caching(&mode_page(&pages, ">> Caching")?), unit.write_cache, "{pages}");
        assert_eq!(descriptor_sense(&mode_page(&pages, ">> Control,")?), unit.descriptor_sense, "{pages}");
        for (title, code) in [
            (">> Read-Write error recovery", 0x01),
            (">> Control extension", 0x4a),
            (">> Power condition", 0x1a),
            (">> Informational exceptions", 0x1c),
        ] {
            assert_eq!(mode_page(&pages, title)?[0] & 0x7f, code, "{pages}");
        }
        // SBC-3 6.5.2.2: number of blocks, density code, block length.
        let descriptor = mode_page(&pages, "> Direct access device block descriptors")?;
        assert_eq!(descriptor[..4], (unit.blocks() as u32).to_be_bytes(), "{pages}");
        assert_eq!(descriptor[4..8], (unit.block as u32).to_be_bytes(), "{pages}");
    }
    let changeable = lab.sh(unit, "sg_modes -a -a -c 1 $D")?;
    assert!(caching(&mode_page(&changeable, ">> Caching")?), "{changeable}");
    let long = lab.sh(unit, "sg_modes --llbaa -p 8 $D")?;
    says(&long, &["longlba=1"])?;
    let descriptor = mode_page(&long, "longlba direct access device block descriptors")?;
    assert_eq!(descriptor[..8], unit.blocks().to_be_bytes(), "{long}");
    assert_eq!(descriptor[12..16], (unit.block as u32).to_be_bytes(), "{long}");
    // SAVED values are refused, and not every page is there.
    let (status, said) = lab.run(unit, "sg_modes -p 0x0b $D")?;
    assert_eq!(status, 5, "{said}");
    Ok(())
}

/// The bytes sg_modes prints below a title, offsets left out.
fn mode_page(text: &str, title: &str) -> Result<Vec<u8>> {
    let (_, rest) = text.split_once(title).context(|| format!("no \"{title}\" in:\n{text}"))?;
    let mut bytes = Vec::new();
    for line in rest.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let hex = words.iter().map(|word| u8::from_str_radix(word, 16)).collect::<Result<Vec<u8>, _>>();
        match hex {
            Ok(hex) if hex.len() > 1 && words.iter().all(|word| word.len() == 2) => bytes.extend(&hex[1..]),
            _ if bytes.is_empty() => continue,
            _ => break,
        }
    }
    if bytes.len() < 8 {
        return Err(vm_tests::Error::new(format!("no bytes below \"{title}\" in:\n{text}")));
    }
    Ok(bytes)
}

/// sg_logs -a: every page is there and can be decoded, and tells of a disk that has nothing to tell.
pub fn logs(lab: &mut Lab, unit: &Unit) -> Result<()> {
    let all = lab.sh(unit, "sg_logs -a -a $D")?;
    never_says(&all, &["unable to decode", "no ascii information", "malformed", "illegal request"])?;
    for page in ["[0x2]", "[0x3]", "[0x5]", "[0xe]", "[0x10]", "[0x2f]"] {
        says(&all, &[&format!("page {page}")])?;
    }
    for page in ["Write error counter page", "Read error counter page", "Verify error counter page"] {
        let (_, counters) = all.split_once(page).context(|| format!("no {page} in:\n{all}"))?;
        assert_eq!(number(counters, "Total uncorrected errors =")?, 0, "{all}");
    }
    says(&all, &["IE asc = 0x0, ascq = 0x0"])?;
    // What SEND DIAGNOSTIC does is in the self-test results.
    let (status, said) = lab.run(unit, "sg_senddiag --test $D && sg_senddiag --selftest=5 $D && sg_logs -p 0x10 $D")?;
    assert_eq!(status, 0, "{said}");
    says(&said, &["self-test result: completed without error [0]"])
}

/// sg_opcodes: the unit lists what the table in the documentation lists, but for what it cannot do.
pub fn commands(lab: &mut Lab, unit: &Unit) -> Result<()> {
    let documented = std::fs::read_to_string(paths::repository().join("docs/commands.md")).unwrap();
    let usages: BTreeMap<(u8, u16), String> = documented.lines().filter_map(documented_usage).collect();
    let mut expected: BTreeSet<(u8, u16)> = usages.keys().copied().collect();
    assert!(expected.len() > 60 && expected.contains(&(0x9e, 0x12)), "{expected:x?}");
    if !unit.unmaps() {
        expected.remove(&(0x42, 0));
        // SANITIZE, BLOCK ERASE.
        expected.remove(&(0x48, 2));
    }
    // WRITE ATOMIC(16) is there where the host's file system writes atomically, which is what the limits tell.
    if number(&lab.sh(unit, "sg_vpd -p bl $D")?, "Maximum atomic transfer length:")? == 0 {
        expected.remove(&(0x9c, 0));
    }
    let listed = lab.sh(unit, "sg_opcodes -n $D")?;
    let (_, rows) = listed.split_once("-----\n").context(|| format!("no table in:\n{listed}"))?;
    let listed: BTreeSet<(u8, u16)> = rows.lines().filter_map(listed_code).collect();
    let differ: Vec<_> = listed.symmetric_difference(&expected).collect();
    assert!(differ.is_empty(), "{differ:x?} are in one only: {rows}");

    for (words, code) in [("0x28", (0x28, 0)), ("0x9e,0x12", (0x9e, 0x12)), ("0x83,0", (0x83, 0))] {
        let one = lab.sh(unit, &format!("sg_opcodes -o {words} $D"))?;
        let usage = format!("Usage data: {}", usages[&code]);
        says(&one, &["Command is supported [conforming to SCSI standard]", &usage])?;
    }
    // READ LONG(10).
    says(&lab.sh(unit, "sg_opcodes -o 0x3e $D")?, &["Command is NOT supported"])?;
    let functions = lab.sh(unit, "sg_opcodes -t $D")?;
    let names = [
        "Abort task",
        "Abort task set",
        "Clear ACA",
        "Clear task set",
        "Logical unit reset",
        "Query task",
        "I_T nexus reset",
    ];
    says(&functions, &names)
}

/// Operation code, service action and CDB usage data of a row of the documentation's table.
fn documented_usage(row: &str) -> Option<((u8, u16), String)> {
    let columns: Vec<&str> = row.strip_prefix("| ")?.split(" | ").collect();
    let (code, action) = columns.first()?.split_once('h')?;
    let action = action.strip_prefix('/').map_or("0", |action| action.trim_end_matches('h'));
    let code = (u8::from_str_radix(code, 16).ok()?, u16::from_str_radix(action, 16).ok()?);
    Some((code, columns.get(3)?.trim_matches('`').to_owned()))
}

/// Operation code and service action of a row of sg_opcodes: ` 9e       12        16    0,0    Get LBA status(16)`. The action may be missing.
fn listed_code(row: &str) -> Option<(u8, u16)> {
    let words: Vec<&str> = row.get(..22)?.split_whitespace().collect();
    let (code, action) = match words[..] {
        [code, length] if length.parse::<u8>().is_ok() => (code, "0"),
        [code, action, _] => (code, action),
        _ => return None,
    };
    Some((u8::from_str_radix(code, 16).ok()?, u16::from_str_radix(action, 16).ok()?))
}

/// The sense data of a failure, in the format that was configured, and REQUEST SENSE in whichever format is asked for.
pub fn sense(lab: &mut Lab, unit: &Unit) -> Result<()> {
    let (status, said) = lab.run(unit, &format!("sg_verify -v --lba={} --count=1 $D", unit.blocks()))?;
    assert_eq!(status, 22, "{said}");
    let last = unit.blocks();
    let (format, information) = if unit.descriptor_sense {
        ("Descriptor format", format!("Information: 0x{last:016x}"))
    } else {
        ("Fixed format", format!("Info fld=0x{last:x} [{last}]"))
    };
    let names = ["current; Sense key: Illegal Request", "Logical block address out of range"];
    says(&said, &[format, names[0], names[1], &information, "Error in Command: byte 2 bit 7"])?;
    let asked = lab.sh(unit, "sg_requests $D && sg_requests -d $D")?;
    says(&asked, &["Fixed format, current; Sense key: No Sense", "Descriptor format, current; Sense key: No Sense"])
}

/// sg_luns, with every SELECT REPORT that has an answer.
pub fn numbers(lab: &mut Lab) -> Result<()> {
    // SAM-5 4.7.7: peripheral device addressing up to 255, then flat space addressing.
    let address = |lun: u16| {
        if lun < 256 { format!("00{lun:02x}000000000000") } else { format!("{:04x}000000000000", 0x4000 | lun) }
    };
    let addresses: Vec<String> = UNITS.iter().map(|unit| address(unit.lun)).collect();
    let well_known = "c101000000000000";
    for (select, expected) in [
        (0, addresses.clone()),
        (1, vec![well_known.to_owned()]),
        (2, addresses.iter().cloned().chain([well_known.to_owned()]).collect()),
    ] {
        let said = lab.sh(&UNITS[0], &format!("sg_luns -s {select} $D"))?;
        let is_address = |line: &&str| line.len() == 16 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        let listed: Vec<&str> = said.lines().map(str::trim).filter(is_address).collect();
        assert_eq!(listed, expected, "{said}");
    }
    Ok(())
}
