//! Connections: halfway, in crowds, never read.

use super::*;

/// Front-ends that stop in the middle: half a message, answers never read, connections by the dozen.
#[test]
fn front_ends_that_stop_halfway() {
    let mut scene = Scene::new();
    let path = scene.vstgt.socket(0).to_owned();
    let connect = || std::os::unix::net::UnixStream::connect(&path).unwrap();
    let mut half = connect();
    half.write_all(&[1, 0, 0]).unwrap();
    let mut half_body = connect();
    half_body.write_all(&[2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1]).unwrap();
    let unread = Wire::new(connect());
    unread.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while unread.try_send(GET_FEATURES as u32, VERSION, &[], &[]).is_ok() {}
    scene.assert_serves("front-ends that stop halfway");
    // No more than so many at once of one socket; the surplus is closed, and when they go others may come.
    let many: Vec<_> = (0..100).map(|_| connect()).collect();
    let vstgt = &scene.vstgt;
    eventually("most are closed", || vstgt.threads() < 40);
    scene.assert_undisturbed("meanwhile");
    drop((half, half_body, unread, many));
    scene.check("a crowd of front-ends");
    // None of them keeps the process from ending.
    let mut half = connect();
    half.write_all(&[1, 0, 0]).unwrap();
    scene.end();
}
