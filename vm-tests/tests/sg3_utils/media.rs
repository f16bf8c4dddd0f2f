//! What the tools do to the medium, looked at on the image.

use crate::Lab;
use crate::unit::{Unit, pattern};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use vm_tests::said::{number, says};
use vm_tests::{Result, host};

/// Where things are written: from this block on.
const AT: u64 = 64;

/// Blocks of the image, a character for each: the byte it is full of, `.` for zeros, `?` for a block that is not full of one byte.
fn on_image(lab: &Lab, unit: &Unit, lba: u64, count: u64) -> String {
    let mut bytes = vec![0; (count * unit.block) as usize];
    File::open(lab.image(unit)).unwrap().read_exact_at(&mut bytes, lba * unit.block).unwrap();
    let letter = |block: &[u8]| match block[0] {
        first if block.iter().any(|byte| *byte != first) => '?',
        0 => '.',
        first => char::from(first),
    };
    bytes.chunks(unit.block as usize).map(letter).collect()
}

/// sg_write_x, sg_write_same, sg_write_verify, sg_sync, sg_dd: what is written is there, and nothing beside it.
pub fn writes(lab: &mut Lab, unit: &Unit) -> Result<()> {
    // Files of one block each.
    lab.sh(unit, "for c in A B C D U; do head -c $B /dev/zero | tr '\\0' $c > $c; done")?;
    lab.sh(unit, &format!("cat A B > in && sg_write_x --normal --16 --bs=$B --lba={AT} --num=2 --in=in $D"))?;
    lab.sh(unit, &format!("sg_dd if=C of=$D bs=$B seek={} count=1 blk_sgio=1", AT + 2))?;
    assert_eq!(on_image(lab, unit, AT - 1, 5), ".ABC.");

    // ORWRITE: 41h | 42h is 43h.
    lab.sh(unit, &format!("sg_write_x --or --16 --bs=$B --lba={AT} --num=1 --in=B $D"))?;
    assert_eq!(on_image(lab, unit, AT, 3), "CBC");
    let verified = format!("sg_write_verify --16 --lba={} --num=1 --in=D $D", AT + 3);
    lab.sh(unit, &format!("{verified} && sg_sync --16 --lba={AT} --count=4 $D"))?;
    assert_eq!(on_image(lab, unit, AT - 1, 6), ".CBCD.");

    lab.sh(unit, &format!("sg_write_same --10 --lba={} --num=5 --in=U --xferlen=$B $D", AT + 16))?;
    lab.sh(unit, &format!("sg_write_same --16 --lba={} --num=3 --in=A --xferlen=$B $D", AT + 21))?;
    assert_eq!(on_image(lab, unit, AT + 15, 10), ".UUUUUAAA.");
    // No data-out buffer: zeros.
    lab.sh(unit, &format!("sg_write_same --16 --ndob --lba={} --num=2 $D", AT + 17))?;
    assert_eq!(on_image(lab, unit, AT + 15, 10), ".U..UUAAA.");
    // To the end of the medium.
    let tail = unit.blocks() - 3;
    lab.sh(unit, &format!("sg_write_same --16 --lba={tail} --num=0 --in=B --xferlen=$B $D"))?;
    assert_eq!(on_image(lab, unit, tail - 1, 4), ".BBB");

    // Read and written again.
    lab.sh(unit, &format!("sg_dd if=$D skip={AT} count=4 bs=$B of=$D seek={} blk_sgio=1", AT + 32))?;
    assert_eq!(on_image(lab, unit, AT + 31, 6), ".CBCD.");
    // Data that are no blocks: the echo buffer.
    let written = "sg_write_buffer --mode=echo --length=512 --in=U $D";
    // sg_read_buffer 1.46 forgets the length it is given.
    lab.sh(unit, &format!("{written} && sg_raw -r 512 -o echo $D 3c 0a 00 00 00 00 00 02 00 00 && cmp -n 512 echo U"))
        .map(drop)
}

/// sg_verify and sg_compare_and_write.
pub fn compares(lab: &mut Lab, unit: &Unit) -> Result<()> {
    let (at, tail) = (AT + 1, unit.blocks() - 3);
    assert_eq!(on_image(lab, unit, AT, 4), "CBCD");
    lab.sh(unit, &format!("sg_verify --lba={AT} --count=4 $D && sg_verify --16 --lba=0 --count={} $D", unit.blocks()))?;
    lab.sh(unit, &format!("cat B C > in && sg_verify --lba={at} --count=2 --ndo=$((2 * B)) --in=in $D"))?;
    lab.sh(unit, &format!("sg_verify --16 --lba={tail} --count=3 --ebytchk=3 --ndo=$B --in=B $D"))?;
    let wrong = format!("cat B D > in && sg_verify --16 -v --lba={at} --count=2 --ndo=$((2 * B)) --in=in $D");
    let (status, said) = lab.run(unit, &wrong)?;
    assert_eq!(status, 14, "{said}");
    says(&said, &["Sense key: Miscompare", "Miscompare during verify operation"])?;

    // What is compared with, and what is written then.
    let command = |data: &str| {
        format!("cat {data} > in && sg_compare_and_write --lba={at} --num=1 --in=in --xferlen=$((2 * B)) $D")
    };
    lab.sh(unit, &command("B A"))?;
    assert_eq!(on_image(lab, unit, AT, 4), "CACD");
    let (status, said) = lab.run(unit, &command("B D"))?;
    assert_eq!(status, 14, "{said}");
    says(&said, &["Miscompare at byte offset: 0"])?;
    let (status, said) =
        lab.run(unit, &format!("(head -c $((B / 2)) A; head -c $((B / 2)) B) > half; {}", command("half D")))?;
    assert_eq!(status, 14, "{said}");
    assert_eq!(number(&said, "byte offset:")?, i128::from(unit.block / 2), "{said}");
    assert_eq!(on_image(lab, unit, AT, 4), "CACD");
    Ok(())
}

/// sg_unmap, WRITE SAME with UNMAP, and sg_get_lba_status: blocks go, and come, as the map tells; or the unit refuses.
pub fn unmaps(lab: &mut Lab, unit: &Unit) -> Result<()> {
    // Stretches that any host file system can give back: four of them, the first at `lba`.
    let run = 64 * 1024 / unit.block;
    let lba = 16 * run;
    let at = |stretch: u64| lba + stretch * run;
    // The byte in each stretch's first and last block.
    let stretches = |lab: &Lab| -> String {
        (0..4)
            .map(|n| on_image(lab, unit, at(n), run))
            .map(|blocks| format!("{}{}", &blocks[..1], &blocks[blocks.len() - 1..]))
            .collect()
    };
    lab.sh(unit, &format!("sg_write_same --16 --lba={lba} --num={} --in=U --xferlen=$B $D", 4 * run))?;
    assert_eq!(stretches(lab), "UUUUUUUU");
    assert_eq!(provisioning(lab, unit, lba)?, MAPPED);
    if !unit.unmaps() {
        for command in ["sg_write_same --16 --unmap", "sg_write_same --10 --unmap", "sg_unmap --force"] {
            let (status, said) = lab.run(unit, &format!("{command} --num=8 --lba={lba} $D"))?;
            assert!(status == 5 || status == 9, "{command}: {status} {said}");
        }
        assert_eq!(stretches(lab), "UUUUUUUU");
        return Ok(());
    }

    let before = host::allocated(&lab.image(unit))?;
    // Two ranges in one command.
    lab.sh(unit, &format!("sg_unmap --force --lba={},{} --num={run},{run} $D", at(1), at(3)))?;
    assert_eq!(stretches(lab), "UU..UU..");
    assert_eq!(host::allocated(&lab.image(unit))?, before - 2 * run * unit.block);
    let map = (0..4).map(|n| provisioning(lab, unit, at(n))).collect::<Result<Vec<u8>>>()?;
    assert_eq!(map, [MAPPED, DEALLOCATED, MAPPED, DEALLOCATED]);
    let told = lab.sh(unit, &format!("sg_get_lba_status --lba={} $D", at(1)))?;
    says(&told, &[&format!("LBA: 0x{:016x} blocks: {run} deallocated", at(1))])?;

    for width in ["--10", "--16"] {
        lab.sh(unit, &format!("sg_write_same --16 --lba={lba} --num={run} --in=A --xferlen=$B $D"))?;
        assert_eq!((provisioning(lab, unit, lba)?, stretches(lab)), (MAPPED, "AA..UU..".to_owned()));
        lab.sh(unit, &format!("sg_write_same {width} --unmap --lba={lba} --num={run} --xferlen=$B --in=/dev/zero $D"))?;
        assert_eq!((provisioning(lab, unit, lba)?, stretches(lab)), (DEALLOCATED, "....UU..".to_owned()), "{width}");
    }
    // Data that unmapped blocks would not read as are written, UNMAP or not (SBC-3 4.7.3.4.4).
    lab.sh(unit, &format!("sg_write_same --16 --unmap --lba={lba} --num={run} --in=A --xferlen=$B $D"))?;
    assert_eq!((provisioning(lab, unit, lba)?, stretches(lab)), (MAPPED, "AA..UU..".to_owned()));
    Ok(())
}

/// PROVISIONING STATUS (SBC-3 5.4.2.2).
const MAPPED: u8 = 0;
const DEALLOCATED: u8 = 1;

/// The provisioning status of the extent at `lba`, as sg_get_lba_status tells it.
fn provisioning(lab: &mut Lab, unit: &Unit, lba: u64) -> Result<u8> {
    let said = lab.sh(unit, &format!("sg_get_lba_status --brief --lba={lba} $D"))?;
    // `0x<lba> 0x<count> <provisioning status> <additional status>`
    let extent = said.lines().find_map(|line| line.trim().strip_prefix(&format!("0x{lba:016x}")));
    let words: Vec<&str> = extent.unwrap_or_else(|| panic!("{lba:x}: {said}")).split_whitespace().collect();
    Ok(words[1].parse().unwrap())
}

/// sg_write_x --atomic: done, or no such command, as the limits say.
pub fn writes_atomically(lab: &mut Lab, unit: &Unit) -> Result<()> {
    let longest = number(&lab.sh(unit, "sg_vpd -p bl $D")?, "Maximum atomic transfer length:")?;
    let write = |count: u64| {
        format!(
            "head -c $(({count} * B)) /dev/zero | tr '\\0' W > in; sg_write_x --atomic=0 --16 --bs=$B --lba=512 --num={count} --in=in $D"
        )
    };
    if longest == 0 {
        let (status, said) = lab.run(unit, &write(8))?;
        assert_eq!(status, 9, "{said}");
        assert_eq!(on_image(lab, unit, 512, 8), "........");
        return Ok(());
    }
    lab.sh(unit, &write(8))?;
    assert_eq!(on_image(lab, unit, 511, 10), ".WWWWWWWW.");
    let (status, said) = lab.run(unit, &write(u64::try_from(longest).unwrap() + 1))?;
    assert_eq!(status, 5, "{said}");
    Ok(())
}

/// sg_sanitize and sg_format: all of the medium, and its space given back where it may be.
pub fn erases(lab: &mut Lab, unit: &Unit) -> Result<()> {
    let whole = |letter: &str| letter.repeat(unit.blocks() as usize);
    // A pattern of one block, on all blocks.
    lab.sh(unit, "sg_sanitize --overwrite --count=1 --pattern=U --ipl=$B --quick --wait $D")?;
    assert!(on_image(lab, unit, 0, unit.blocks()) == whole("U"));
    let full = host::allocated(&lab.image(unit))?;
    lab.sh(unit, "sg_sanitize --block --quick --wait $D && sg_turs $D")?;
    assert!(on_image(lab, unit, 0, unit.blocks()) == whole("."));
    let left = host::allocated(&lab.image(unit))?;
    assert!(left < full / 2, "of {full} bytes {left} are left");
    // Nothing failed, so there is no failure to be got out of.
    lab.sh(unit, "sg_sanitize --fail --quick $D")?;
    let (status, said) = lab.run(unit, "sg_sanitize --crypto --quick --wait $D")?;
    assert_ne!(status, 0, "{said}");

    lab.sh(
        unit,
        &format!(
            "sg_dd if=U of=$D bs=$B seek={AT} count=1 blk_sgio=1 && sg_format --format --quick --wait $D && sg_turs $D"
        ),
    )?;
    assert!(on_image(lab, unit, 0, unit.blocks()) == whole("."));
    Ok(())
}

/// sg_xcopy and sg_copy_results: from one unit to another, and within one, without the guest's seeing the data.
pub fn copies(lab: &mut Lab, from: &Unit, to: &Unit) -> Result<()> {
    let limits = lab.sh(from, "sg_copy_results --params $D")?;
    says(
        &limits,
        &["Copy from block device to block device", "Identification descriptor", "Inline data not supported"],
    )?;
    let page = lab.sh(from, "sg_vpd -p tpc $D")?;
    // The page and the command say the same.
    for (of_command, of_page) in [
        ("Maximum segment descriptor count:", "Maximum segment descriptor count:"),
        ("Maximum segment length:", "Maximum segment length:"),
    ] {
        assert_eq!(number(&limits, of_command)?, number(&page, of_page)?, "{limits}\n{page}");
    }
    lab.sh(from, "for c in X Y; do head -c $((100 * B)) /dev/zero | tr '\\0' $c; done > in; sg_dd if=in of=$D bs=$B seek=1024 count=200 blk_sgio=1")?;
    assert_eq!(on_image(lab, from, 1023, 3), ".XX");
    let copied = lab.sh(from, &format!("sg_xcopy if=$D of=/tmp/{} bs=$B skip=1024 seek=300 count=200", to.serial))?;
    says(&copied, &["200 blocks, 1 command"])?;
    assert_eq!(on_image(lab, to, 299, 202), format!(".{}{}.", "X".repeat(100), "Y".repeat(100)));
    lab.sh(from, "sg_xcopy if=$D of=$D bs=$B skip=1124 seek=16384 count=2")?;
    assert_eq!(on_image(lab, from, 16383, 4), ".YY.");
    // Past the end of the other.
    let past = format!("sg_xcopy if=$D of=/tmp/{} bs=$B skip=1024 seek={} count=2", to.serial, to.blocks() - 1);
    let (status, said) = lab.run(from, &past)?;
    assert_ne!(status, 0, "{said}");
    assert_eq!(on_image(lab, to, to.blocks() - 1, 1), ".");
    Ok(())
}

/// sg_prevent and sg_start: a medium that is held, goes, and is back with what was on it.
pub fn comes_and_goes(lab: &mut Lab, unit: &Unit) -> Result<()> {
    let held = host::sha256(&lab.image(unit))?;
    let (status, said) = lab.run(unit, "sg_prevent --prevent=1 $D && sg_start -v --eject $D")?;
    assert_eq!(status, 5, "{said}");
    says(&said, &["Medium removal prevented"])?;
    lab.sh(unit, "sg_turs $D && sg_prevent --allow $D && sg_start --eject $D")?;
    let (status, said) = lab.run(unit, "sg_turs -v $D")?;
    assert_eq!(status, 2, "{said}");
    says(&said, &["Sense key: Not Ready", "Medium not present"])?;
    let (status, said) = lab.run(unit, "sg_readcap $D")?;
    assert_eq!(status, 2, "{said}");
    // What a unit is does not depend on its medium.
    says(&lab.sh(unit, "sg_inq $D")?, &[&format!("Unit serial number: {}", unit.serial)])?;
    lab.sh(unit, "sg_start --load $D && (sg_turs $D || sg_turs $D)")?;
    let digest = lab.sh(unit, &format!("sg_dd if=$D of=copy bs=$B count={} && sha256sum < copy", unit.blocks()))?;
    says(&digest, &[&held])
}

/// A read-only unit: nothing gets through, and the image is as it was; what only reads is done.
pub fn refuses(lab: &mut Lab, unit: &Unit) -> Result<()> {
    lab.sh(unit, "head -c $B /dev/zero > A; cat A A > AA")?;
    for command in [
        "sg_write_x --normal --16 --bs=$B --num=1 --in=A",
        "sg_write_x --or --16 --bs=$B --num=1 --in=A",
        "sg_write_same --10 --num=1 --in=A --xferlen=$B",
        "sg_write_same --16 --num=1 --in=A --xferlen=$B",
        "sg_compare_and_write --num=1 --in=AA --xferlen=$((2 * B))",
        "sg_write_verify --16 --num=1 --in=A",
    ] {
        let (status, said) = lab.run(unit, &format!("{command} --lba=0 $D"))?;
        // DATA PROTECT.
        assert_eq!(status, 7, "{command}: {said}");
    }
    assert!(fs::read(lab.image(unit)).unwrap() == pattern(unit.bytes), "a read-only image was written");
    let read = format!("sg_dd if=$D of=copy bs=$B count={0} && sg_verify --16 --lba=0 --count={0} $D", unit.blocks());
    says(&lab.sh(unit, &format!("{read} && sha256sum < copy"))?, &[&host::sha256(&lab.image(unit))?])
}
