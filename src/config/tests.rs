use super::*;
use crate::backing::{CacheMode, Locking};
use crate::lu::{Provisioning, SoftThreshold};

fn cli(args: &[&str]) -> Cli {
    use clap::Parser;
    Cli::try_parse_from(std::iter::once("vstgt").chain(args.iter().copied())).unwrap()
}

fn config(args: &[&str]) -> Result<Config, String> {
    Config::try_from(cli(args)).map_err(|e| e.to_string())
}

#[test]
fn one_socket_and_one_file_are_target_0_lun_0() {
    let c = config(&["--socket-path", "/tmp/vm.sock", "--blk-file", "disk.img"]).unwrap();

    assert_eq!(c.endpoints.len(), 1);
    assert_eq!(c.endpoints[0].socket, SocketConfig::Path("/tmp/vm.sock".into()));
    assert_eq!(c.endpoints[0].initiator, "/tmp/vm.sock");
    assert_eq!((c.units[0].target, c.units[0].lun, c.units[0].block_size), (0, 0, 512));
    assert!(!c.units[0].read_only);
}

#[test]
fn a_doubled_comma_is_one_comma() {
    let c = config(&["--socket-path", "a,,b.sock,initiator=x,,y", "--lun", "file=d,,1.img,lun=3,target=2"]).unwrap();

    assert_eq!(c.endpoints[0].socket, SocketConfig::Path("a,b.sock".into()));
    assert_eq!(c.endpoints[0].initiator, "x,y");
    assert_eq!(c.units[0].file, PathBuf::from("d,1.img"));
    assert_eq!((c.units[0].target, c.units[0].lun), (2, 3));
}

#[test]
fn all_keys_of_a_unit_are_taken() {
    let c = config(&[
        "--socket-path",
        "a.sock,initiator=a",
        "--socket-path",
        "b.sock,initiator=b",
        "--lun",
        "file=d,lun=16383,target=255,read-only=on,removable=on,serial=S1,block-size=4096,vendor=V,product=P,initiator=a,initiator=b,\
         physical-block-size=16384,rotation-rate=7200,provisioning=full,cache=none,write-cache=off,sense-format=descriptor,\
         naa=0x5000123456789aBc,eui=0x020000fffe0000010203040A,uuid=123e4567-E89B-42d3-a456-426614174000,\
         lowest-aligned-lba=3,threshold=17,locking=on,lost-writes=accept,revision=1.2,target-port=vstgt",
    ])
    .unwrap();

    assert_eq!(
        c.units[0],
        UnitConfig {
            file: "d".into(),
            target: 255,
            lun: 16383,
            read_only: true,
            removable: true,
            block_size: 4096,
            physical_block_size: 16384,
            lowest_aligned: 3,
            rotation_rate: 7200,
            accept_lost_writes: true,
            locking: Locking::On,
            provisioning: Provisioning::Full,
            threshold: SoftThreshold::Percent(17),
            cache: CacheMode::None,
            write_cache: false,
            descriptor_sense: true,
            serial: Some("S1".into()),
            naa: Some(0x5000_1234_5678_9abc),
            eui: Some(vec![2, 0, 0, 0xff, 0xfe, 0, 0, 1, 2, 3, 4, 0x0a]),
            uuid: Some(0x123e_4567_e89b_42d3_a456_4266_1417_4000_u128.to_be_bytes()),
            vendor: Some("V".into()),
            product: Some("P".into()),
            revision: Some("1.2".into()),
            initiators: vec!["a".into(), "b".into()],
            target_ports: vec!["vstgt".into()],
        }
    );
    assert!(c.units[0].shared_by(&c.endpoints));
    assert_eq!(c.units[0].physical_exponent(), 2);
}

#[test]
fn what_is_not_said_of_a_unit_has_a_default() {
    for args in [["--blk-file", "d"], ["--lun", "file=d"]] {
        let c = config(&[&["--socket-path", "s"], &args[..]].concat()).unwrap();
        let u = &c.units[0];
        assert_eq!((u.block_size, u.physical_block_size, u.physical_exponent()), (512, 512, 0));
        assert_eq!((u.rotation_rate, u.provisioning), (1, Provisioning::AsImage));
        assert_eq!(u.threshold, SoftThreshold::AsImage);
        assert!(u.locking == Locking::Auto && !u.accept_lost_writes);
        assert!(u.write_cache && !u.descriptor_sense && !u.read_only && !u.removable);
        assert_eq!((&u.serial, u.naa, &u.vendor, &u.product, &u.revision), (&None, None, &None, &None, &None));
        assert_eq!((u.lowest_aligned, &u.eui, u.uuid), (0, &None, None));
    }
}

#[test]
fn physical_blocks_are_logical_blocks_times_a_power_of_two_up_to_128() {
    let with = |keys: &str| config(&["--socket-path", "s", "--lun", &format!("file=d,{keys}")]);
    for (keys, exponent) in [
        ("physical-block-size=512", 0),
        ("physical-block-size=4096", 3),
        ("physical-block-size=65536", 7),
        ("block-size=4096,physical-block-size=4096", 0),
        ("physical-block-size=524288,block-size=4096", 7),
    ] {
        assert_eq!(with(keys).unwrap().units[0].physical_exponent(), exponent, "{keys}");
    }
    for keys in [
        "physical-block-size=0",
        "physical-block-size=256",
        "physical-block-size=1000",
        "physical-block-size=131072",
        "block-size=4096,physical-block-size=512",
    ] {
        assert!(with(keys).unwrap_err().contains("physical-block-size="), "{keys}");
    }
}

#[test]
fn reserved_values_are_refused() {
    let with = |keys: &str| config(&["--socket-path", "s", "--lun", &format!("file=d,{keys}")]);
    for rate in ["0", "1", "1025", "65534"] {
        assert!(with(&format!("rotation-rate={rate}")).is_ok(), "{rate}");
    }
    for rate in ["2", "1024", "65535", "65536", "-1", "fast"] {
        assert!(with(&format!("rotation-rate={rate}")).unwrap_err().contains("0, 1 or 1025"), "{rate}");
    }
    for naa in ["0x2000000000000001", "0x3fffffffffffffff", "0x5000000000000000"] {
        assert!(with(&format!("naa={naa}")).is_ok(), "{naa}");
    }
    for naa in
        ["0x1000000000000001", "0x6000000000000000", "5000000000000000", "0x500000000000000", "0x+000000000000000"]
    {
        assert!(with(&format!("naa={naa}")).unwrap_err().contains("16 hexadecimal digits"), "{naa}");
    }
    for eui in ["0x0200000000000001", "0x020000000000000100000000", "0xffffffffffffffffffffffffffffffff"] {
        assert!(with(&format!("eui={eui}")).is_ok(), "{eui}");
    }
    for eui in ["0x0000000000000000", "0200000000000001", "0x02000000000000010", "0x+200000000000001", "0x"] {
        assert!(with(&format!("eui={eui}")).unwrap_err().contains("16, 24 or 32"), "{eui}");
    }
    for uuid in [
        "00000000-0000-0000-0000-000000000000",
        "123e4567e89b42d3a456426614174000",
        "123e4567-e89b-42d3-a456-42661417400",
        "123e4567-e89b-42d3-a456-42661417400g",
        "123e456-7e89b-42d3-a456-426614174000",
    ] {
        assert!(with(&format!("uuid={uuid}")).unwrap_err().contains("a UUID"), "{uuid}");
    }
    assert!(with("lowest-aligned-lba=1").unwrap_err().contains("from 0 to 0"));
    assert!(with("lowest-aligned-lba=7,physical-block-size=4096").is_ok());
    assert!(with("lowest-aligned-lba=8,physical-block-size=4096").unwrap_err().contains("from 0 to 7"));
    assert_eq!(with("threshold=off").unwrap().units[0].threshold, SoftThreshold::Off);
    for threshold in ["0", "101", "256", "-1", "5%", "on"] {
        assert!(with(&format!("threshold={threshold}")).unwrap_err().contains("from 1 to 100, or off"), "{threshold}");
    }
    assert!(with("lost-writes=on").unwrap_err().contains("refuse or accept"));
    assert!(with("locking=always").unwrap_err().contains("on, off or auto"));
    assert!(with("provisioning=thick").unwrap_err().contains("thin or full"));
    assert!(with("sense-format=both").unwrap_err().contains("fixed or descriptor"));
    assert!(with("cache=on").unwrap_err().contains("writeback, writethrough, none, directsync or unsafe"));
    assert!(with("write-cache=maybe").unwrap_err().contains("on or off"));
    assert!(with("revision=12345").unwrap_err().contains("1 to 4 printable"));
}

#[test]
fn two_images_are_not_one_unit() {
    let two = |a: &str, b: &str| {
        let (a, b) = (format!("file=/a{a}"), format!("file=/b,lun=1{b}"));
        config(&["--socket-path", "s", "--lun", &a, "--lun", &b])
    };
    let error = two(",serial=S", ",serial=S").unwrap_err();
    assert!(error.starts_with("/a and /b have one serial number 'S'"), "{error}");
    let error = two(",naa=0x5000000000000001", ",naa=0x5000000000000001,serial=T").unwrap_err();
    assert!(error.contains("one NAA designator 0x5000000000000001"), "{error}");
    // A serial number that is configured and one that is derived from a designator.
    let error = two(",naa=0x5000000000000001", ",serial=5000000000000001").unwrap_err();
    assert!(error.contains("one serial number '5000000000000001'"), "{error}");
    let error = two(",eui=0x0200000000000001", ",eui=0x0200000000000001").unwrap_err();
    assert!(error.contains("one EUI-64 designator 0x0200000000000001"), "{error}");
    let uuid = ",uuid=123e4567-e89b-42d3-a456-426614174000";
    let error = two(uuid, &uuid.to_uppercase().replace(",UUID", ",uuid")).unwrap_err();
    assert!(error.contains("one UUID 123e4567e89b42d3a456426614174000"), "{error}");
    // A designator that another unit derives from its path.
    let (derived, _) = crate::lu::derive(Path::new("/a"), None, None);
    assert!(two("", &format!(",serial=T,naa=0x{derived:016x}")).unwrap_err().contains("NAA designator"));
    assert!(two(",serial=S", ",serial=T").is_ok());
    assert!(two("", "").is_ok());
    // One image, read-only, twice.
    let twice = ["--socket-path", "s", "--lun", "file=/a,read-only=on", "--lun", "file=/a,lun=1,read-only=on"];
    assert!(config(&twice).is_ok());
}

#[test]
fn what_makes_no_sense_is_named() {
    let s = ["--socket-path", "vm.sock"];
    let with = |more: &[&str]| config(&[&s[..], more].concat()).unwrap_err();

    assert!(config(&["--blk-file", "d"]).unwrap_err().starts_with("no socket"));
    assert!(with(&[]).starts_with("no disk"));
    assert!(with(&["--lun", "lun=1"]).contains("'file=' is missing"));
    assert!(with(&["--lun", "file=d,lun=16384"]).contains("lun=16384: must be a number from 0 to 16383"));
    assert!(with(&["--lun", "file=d,colour=red"]).contains("unknown key 'colour'"));
    assert!(with(&["--lun", "file=d,block-size=520"]).contains("must be 512 or 4096"));
    assert!(with(&["--lun", "file=d,vendor=ninechars"]).contains("1 to 8 printable"));
    assert!(with(&["--lun", "file=d,read-only=yes"]).contains("must be on or off"));
    assert!(with(&["--lun", "file=d,lun=1,lun=2"]).contains("given twice"));
    assert!(with(&["--lun", "file=a", "--lun", "file=b"]).contains("target 0 LUN 0 is given twice (a and b)"));
    assert!(with(&["--lun", "file=a", "--lun", "file=a,lun=1"]).contains("given for two logical units"));
    assert!(with(&["--lun", "file=a,initiator=nobody"]).contains("'nobody' has no socket"));
    assert!(with(&["--blk-file", "d", "--num-queues", "255"]).contains("must be 1 to 254"));
    assert!(with(&["--blk-file", "d", "--socket-path", "vm.sock"]).contains("given twice"));
    assert!(
        with(&["--blk-file", "d", "--socket-path", "b,initiator=vm", "--socket-path", "c,initiator=vm"])
            .contains("'vm'")
    );
}

#[test]
fn one_number_may_be_two_units_for_two_initiators() {
    let c = config(&[
        "--socket-path",
        "a.sock,initiator=a",
        "--socket-path",
        "b.sock,initiator=b",
        "--lun",
        "file=da,lun=1,initiator=a",
        "--lun",
        "file=db,lun=1,initiator=b",
    ]);

    assert!(c.is_ok());
}

#[test]
fn units_of_disjoint_initiators_hide_no_clash_from_a_third() {
    let error = config(&[
        "--socket-path",
        "a.sock,initiator=a",
        "--socket-path",
        "b.sock,initiator=b",
        "--lun",
        "file=da,initiator=a",
        "--lun",
        "file=db,initiator=b",
        "--lun",
        "file=dc,initiator=a",
    ])
    .unwrap_err();

    assert!(error.contains("LUN 0 is given twice (da and dc)"), "{error}");
}

#[test]
fn a_nexus_loss_timeout_has_an_end() {
    let with = |seconds: &str| config(&["--socket-path", "s", "--blk-file", "d", "--nexus-loss-timeout", seconds]);

    assert!(with("18446744073709551615").unwrap_err().contains("must be at most"));
    assert!(with("0").is_ok());
}

#[test]
fn state_is_kept_where_it_is_said_or_in_the_runtime_directory() {
    let with = |more: &[&str]| config(&[&["--socket-path", "a", "--blk-file", "f"], more].concat());
    assert_eq!(with(&[]).unwrap().state_dir, Place::Runtime);
    assert_eq!(with(&["--state-dir", "none"]).unwrap().state_dir, Place::Nowhere);
    assert_eq!(with(&["--state-dir", "./none"]).unwrap().state_dir, Place::At("./none".into()));
    assert_eq!(with(&["--state-dir", "/var/lib/vstgt"]).unwrap().state_dir, Place::At("/var/lib/vstgt".into()));
}

fn ports(more: &[&str]) -> Result<Vec<(String, u16, u16, AccessState)>, String> {
    let c = config(&[&["--socket-path", "s", "--blk-file", "d"], more].concat())?;
    Ok(c.target_ports.into_iter().map(|p| (p.name, p.relative, p.group, p.state)).collect())
}

#[test]
fn without_a_word_there_is_one_target_port() {
    assert_eq!(ports(&[]).unwrap(), [("vstgt".to_owned(), 1, 1, AccessState::ActiveOptimized)]);
}

#[test]
fn ports_are_numbered_around_those_that_are() {
    let four = ["name=a", "name=b,id=1,group=0", "name=c,id=65535", "name=d,group=9"];
    let numbered = ports(&four.map(|port| ["--target-port", port]).concat()).unwrap();
    let numbers: Vec<_> =
        numbered.iter().map(|(name, relative, group, _)| (name.as_str(), *relative, *group)).collect();
    assert_eq!(numbers, [("a", 2, 2), ("b", 1, 0), ("c", 65535, 65535), ("d", 3, 9)]);
}

/// The state is the group's, whichever of its ports says so.
#[test]
fn states_are_of_groups() {
    use AccessState::*;
    let two =
        |a: &str, b: &str| ports(&["--target-port", &format!("name=a,{a}"), "--target-port", &format!("name=b,{b}")]);
    let states = |a, b| two(a, b).unwrap().into_iter().map(|p| p.3).collect::<Vec<_>>();
    assert_eq!(states("group=7", "group=7,state=standby"), [Standby, Standby]);
    assert_eq!(states("group=7", "group=8,state=offline"), [ActiveOptimized, Offline]);
    assert_eq!(states("state=active-nonoptimized", "state=unavailable"), [ActiveNonOptimized, Unavailable]);
    let error = two("group=7,state=active", "group=7,state=standby").unwrap_err();
    assert!(error.contains("ports of group 7 have one state"), "{error}");
    assert!(two("group=7,state=standby", "group=7,state=standby").is_ok());
}

#[test]
fn ports_that_make_no_sense_are_named() {
    let refused = |args: &[&str]| {
        let args: Vec<&str> = args.iter().flat_map(|port| ["--target-port", port]).collect();
        ports(&args).unwrap_err()
    };
    assert!(refused(&["id=1"]).contains("'name=' is missing"));
    assert!(refused(&["name="]).contains("'name=' is missing"));
    assert!(refused(&["name=a,id=0"]).contains("id=0: must be a number from 1 to 65535"));
    assert!(refused(&["name=a,group=65536"]).contains("group=65536: must be a number from 0 to 65535"));
    assert!(refused(&["name=a,state=transitioning"]).contains("must be active, active-nonoptimized, standby"));
    assert!(refused(&["name=a,colour=red"]).contains("unknown key 'colour'"));
    assert!(refused(&["name=a", "name=a"]).contains("name=a: given twice"));
    assert!(refused(&["name=a,id=3", "name=b,id=3"]).contains("name=b: id 3 is a's"));
}

/// A socket is a nexus: a pair of ports.
#[test]
fn one_initiator_may_be_on_two_target_ports() {
    let with = |sockets: [&str; 2]| {
        let ports = ["--target-port", "name=p", "--target-port", "name=q", "--blk-file", "d"];
        let sockets = sockets.map(|s| ["--socket-path", s]).concat();
        config(&[&ports[..], &sockets].concat())
    };
    let c = with(["a,initiator=vm,target-port=q", "b,initiator=vm"]).unwrap();
    let pairs: Vec<_> = c.endpoints.iter().map(|e| (e.initiator.as_str(), e.target_port.as_str())).collect();
    assert_eq!(pairs, [("vm", "q"), ("vm", "p")]);
    assert!(c.units[0].shared_by(&c.endpoints), "by two nexuses of one guest");
    let error = with(["a,initiator=vm,target-port=q", "b,initiator=vm,target-port=q"]).unwrap_err();
    assert!(error.starts_with("initiator name 'vm' is used by two sockets on target port 'q'"), "{error}");
    let error = with(["a,target-port=r", "b"]).unwrap_err();
    assert!(error.starts_with("--socket-path a,target-port=r: there is no target port 'r'"), "{error}");
    let fd = config(&["--fd", "7,initiator=x,target-port=r", "--blk-file", "d"]).unwrap_err();
    assert!(fd.contains("--fd 7,initiator=x,target-port=r: there is no target port 'r'"), "{fd}");
}

#[test]
fn units_may_be_restricted_to_ports() {
    let with = |units: &[&str]| {
        let mut args = vec!["--target-port", "name=p", "--target-port", "name=q"];
        args.extend(["--socket-path", "a,initiator=vm,target-port=p", "--socket-path", "b,initiator=vm,target-port=q"]);
        args.extend(["--socket-path", "c,initiator=other,target-port=p"]);
        args.extend(units.iter().flat_map(|unit| ["--lun", unit]));
        config(&args)
    };
    let c = with(&["file=x,target-port=q", "file=y,target-port=p", "file=z,lun=1"]).unwrap();
    assert_eq!(c.units[0].target_ports, ["q"]);
    assert_eq!([0, 1, 2].map(|u: usize| c.units[u].shared_by(&c.endpoints)), [false, true, true]);
    // One address, twice, for the nexuses of one port.
    let error = with(&["file=x,target-port=q", "file=y,target-port=p,target-port=q"]).unwrap_err();
    assert!(error.contains("LUN 0 is given twice (x and y)"), "{error}");
    assert!(with(&["file=x,target-port=r"]).unwrap_err().starts_with("--lun x: there is no target port 'r'"));
    let error = with(&["file=x,target-port=q,initiator=other"]).unwrap_err();
    assert!(error.starts_with("--lun x: no socket of its initiators is on one of its target ports"), "{error}");
}

#[test]
fn a_cache_mode_has_a_default_for_the_write_cache() {
    let unit = |keys: &str| {
        let lun = format!("file=a{keys}");
        config(&["--socket-path", "/tmp/vm.sock", "--lun", &lun]).unwrap().units.remove(0)
    };
    for (keys, cache, write_cache) in [
        ("", CacheMode::Auto, true),
        (",cache=writeback", CacheMode::Writeback, true),
        (",cache=writethrough", CacheMode::Writethrough, false),
        (",cache=none", CacheMode::None, true),
        (",cache=directsync", CacheMode::Directsync, false),
        (",cache=unsafe", CacheMode::Unsafe, true),
        (",cache=directsync,write-cache=on", CacheMode::Directsync, true),
        (",cache=unsafe,write-cache=off", CacheMode::Unsafe, false),
    ] {
        let unit = unit(keys);
        assert_eq!((unit.cache, unit.write_cache), (cache, write_cache), "{keys}");
    }
}
