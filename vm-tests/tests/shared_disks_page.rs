//! `docs/shared-disks.md` is true: its dialogues are run as they stand there, the host's by a vstgt and three QEMU, the nodes' in
//! their guests, and everything the page shows of an answer must be in the answer.
//!
//! In a block marked `console`, a line `<who># <command>` or `host$ <command>` (which a backslash continues) is run; the lines
//! below it are lines of the answer, in order, perhaps not all of them. A command that fails is wrong unless the page shows what it says.

use std::fs;
use std::path::Path;
use vm_tests::cluster::{Cluster, Exit, Node};
use vm_tests::qemu::Machine;
use vm_tests::vstgt::Config;
use vm_tests::workdir::WorkDir;
use vm_tests::{Context, Result, paths, provision};

/// Folders the page names, all of which are the test's own folder.
const FOLDERS: [&str; 3] = ["/srv/cluster/", "/run/cluster/", "/var/lib/cluster/"];

/// A command of the page.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// Who runs it: `host`, or a node's name.
    who: String,
    command: String,
    /// What the page shows of the answer.
    answer: Vec<String>,
}

#[test]
fn the_page_shows_what_happens() -> Result<()> {
    provision::check()?;
    let page = paths::repository().join("docs/shared-disks.md");
    let page = fs::read_to_string(&page).context(|| format!("read {}", page.display()))?;
    let (host, guests): (Vec<Step>, Vec<Step>) = steps(&page).into_iter().partition(|step| step.who == "host");

    let dir = WorkDir::new("page")?;
    let mut cluster = host_side(&host, dir)?;
    assert!(guests.len() > 20, "only {} commands for guests on the page", guests.len());
    for step in &guests {
        let node = cluster.nodes.iter_mut().find(|node| node.name == step.who);
        run(node.context(|| format!("no node called {}", step.who))?, step)?;
    }
    cluster.finish()
}

/// Does what the page does on the host: an image, a vstgt, a QEMU for each node, named after its socket.
fn host_side(steps: &[Step], dir: WorkDir) -> Result<Cluster> {
    let (mut image, mut config, mut machines) = (None, None, Vec::new());
    for step in steps {
        let words: Vec<String> = step.command.split_whitespace().map(|word| here(word, dir.root())).collect();
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["truncate", "-s", "64M", file] => image = Some(sparse(Path::new(file))?),
            ["vstgt", ..] => config = Some(words[1..].iter().cloned().fold(Config::new(), Config::arg)),
            ["qemu-system-x86_64", ..] => machines.push(machine(&words)?),
            _ => unreachable!("the page has the host run `{}`", step.command),
        }
    }
    let image = image.context(|| "the page makes no image")?;
    let config = config.context(|| "the page starts no vstgt")?;
    let config = machines.iter().fold(config, |config, (name, _)| config.listens(&dir.path(&format!("{name}.sock"))));
    Cluster::of(config.arg("-v"), machines, image, dir)
}

/// A word of the page with the test's folder for the page's.
fn here(word: &str, dir: &Path) -> String {
    FOLDERS.iter().fold(word.to_owned(), |word, folder| word.replace(folder, &format!("{}/", dir.display())))
}

fn sparse(path: &Path) -> Result<std::path::PathBuf> {
    let file = fs::File::create_new(path).context(|| format!("create {}", path.display()))?;
    file.set_len(64 << 20).context(|| format!("size {}", path.display()))?;
    Ok(path.to_owned())
}

/// The machine of a command line: the disk as it is there; the rest is every test machine's, of which the page must have the memory.
fn machine(words: &[String]) -> Result<(String, Machine)> {
    let after = |option: &str| words.iter().skip_while(|word| *word != option).nth(1);
    let chardev = after("-chardev").context(|| "no -chardev on the page")?;
    let device = after("-device").context(|| "no -device on the page")?;
    let socket = chardev.split(',').find_map(|property| property.strip_prefix("path="));
    let name = socket.and_then(|path| Path::new(path).file_stem()).context(|| format!("no socket in {chardev}"))?;
    let name = name.to_string_lossy().into_owned();
    for (option, value) in [
        ("-machine", "q35,memory-backend=mem"),
        ("-object", "memory-backend-memfd,id=mem,size=320M,share=on"),
        ("-m", "320M"),
        ("-smp", "2"),
    ] {
        assert_eq!(after(option).map(String::as_str), Some(value), "{option} of {name}");
    }
    let machine = Machine::new(&name)?.memory_mib(320).vcpus(2);
    Ok((name, machine.arg("-chardev").arg(chardev).arg("-device").arg(device)))
}

#[track_caller]
fn run(node: &mut Node, step: &Step) -> Result<()> {
    let (exit, text) = node.run(&step.command)?;
    let told = || format!("{}# {}\n({exit:?})\n{text}", step.who, step.command);
    assert!(exit == Exit::Good || !step.answer.is_empty(), "{}", told());
    let plain = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines = text.lines().map(plain);
    for expected in &step.answer {
        let expected = plain(expected);
        assert!(lines.any(|line| line.contains(&expected)), "no \"{expected}\" (or not there) in\n{}", told());
    }
    Ok(())
}

/// The commands of a page's `console` blocks.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut inside, mut continued) = (false, false);
    for line in page.lines() {
        if let Some(mark) = line.strip_prefix("```") {
            inside = !inside && mark == "console";
            continue;
        }
        if !inside {
            continue;
        }
        let (text, more) = line.strip_suffix('\\').map_or((line, false), |text| (text, true));
        let begun = text.split_once("# ").or_else(|| text.split_once("$ "));
        match (begun, steps.last_mut()) {
            (_, Some(step)) if continued => step.command.push_str(text),
            (Some((who, command)), _) if who.bytes().all(|byte| byte.is_ascii_lowercase()) => {
                steps.push(Step { who: who.to_owned(), command: command.to_owned(), answer: Vec::new() });
            }
            (_, Some(step)) => step.answer.push(text.to_owned()),
            (_, None) => unreachable!("an answer before the first command: {text}"),
        }
        continued = more;
    }
    steps
}

#[test]
fn a_dialogue_is_commands_and_answers() {
    let page = "text\n```console\nhost$ a b \\\n    c\nalpha# echo $D\n  x: 1\n  y\n```\n```sh\nalpha# not this\n```\n";
    let step = |who: &str, command: &str, answer: &[&str]| Step {
        who: who.to_owned(),
        command: command.to_owned(),
        answer: answer.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(steps(page), [step("host", "a b     c", &[]), step("alpha", "echo $D", &["  x: 1", "  y"])]);
}
