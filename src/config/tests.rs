use super::*;

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
        "file=d,lun=16383,target=255,read-only=on,serial=S1,block-size=4096,vendor=V,product=P,initiator=a,initiator=b",
    ])
    .unwrap();

    assert_eq!(
        c.units[0],
        UnitConfig {
            file: "d".into(),
            target: 255,
            lun: 16383,
            read_only: true,
            block_size: 4096,
            serial: Some("S1".into()),
            vendor: Some("V".into()),
            product: Some("P".into()),
            initiators: vec!["a".into(), "b".into()],
        }
    );
    assert!(c.units[0].shared_by(2));
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
