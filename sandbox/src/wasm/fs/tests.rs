use super::{super::memory::Budget, *};

fn fs() -> Fs {
    let mut fs = Fs::new(100, 5, Budget::new(100).share());
    let work = fs.place_dir(b"/work", true);
    fs.place_file(work, b"layer", Content::Shared(b"shared"[..].into()), true);
    let assay = fs.place_dir(b"/assay", false);
    fs.place_file(assay, b"trusted", Content::Shared(b"ours"[..].into()), false);
    fs
}

fn make(fs: &mut Fs, path: &str) -> FsResult<NodeId> {
    let at = fs.find(Fs::ROOT, path.as_bytes(), true)?;
    fs.create_file(&at, 0)
}

#[test]
fn paths_stay_inside() {
    let mut fs = fs();
    let work = fs.lookup(Fs::ROOT, b"work", true).unwrap();
    for (name, target) in [("up", "../../../assay"), ("loop", "loop"), ("root", "/")] {
        let at = fs.find(work, name.as_bytes(), false).unwrap();
        fs.create_symlink(&at, target.as_bytes(), 0).unwrap();
    }
    let root = Some(Fs::ROOT);
    let cases: [(&[u8], FsResult<Option<NodeId>>); 9] = [
        (b"../../..", Ok(root)),
        (b"root/../..", Ok(root)),
        (b"root", Ok(root)),
        (b"/work", Err(Errno::Notcapable)),
        (b"", Err(Errno::Noent)),
        (b"loop", Err(Errno::Loop)),
        (b"layer/x", Err(Errno::Notdir)),
        (b"nowhere/x", Err(Errno::Noent)),
        (b"nul\0", Err(Errno::Inval)),
    ];
    for (path, expected) in cases {
        let got = fs.find(work, path, true).map(|found| found.node);
        assert_eq!(got, expected, "{}", path.escape_ascii());
    }
    let trusted = fs.lookup(work, b"up/trusted", true).unwrap();
    assert_eq!(fs.write(trusted, 0, b"x", 0), Err(Errno::Rofs));
    assert_eq!(make(&mut fs, "work/up/new"), Err(Errno::Rofs));
    assert_eq!(make(&mut fs, "new"), Err(Errno::Rofs));
}

#[test]
fn bytes_and_inodes_run_out_and_come_back() {
    let mut fs = fs();
    let own = make(&mut fs, "work/own").unwrap();
    assert_eq!(fs.write(own, 0, &[1; 80], 0), Ok(80));
    assert_eq!(fs.write(own, 80, &[1; 80], 0), Ok(20));
    assert_eq!(fs.write(own, 100, &[1; 80], 0), Err(Errno::Nospc));
    assert_eq!(fs.resize(own, 1 << 40, 0), Err(Errno::Nospc));
    // A layer's file costs its whole size once it is changed.
    let layer = fs.lookup(Fs::ROOT, b"work/layer", true).unwrap();
    assert_eq!(fs.write(layer, 0, b"S", 0), Err(Errno::Nospc));
    fs.resize(own, 90, 0).unwrap();
    assert_eq!(fs.write(layer, 0, b"S", 0), Ok(1));
    assert_eq!(fs.load(b"/work/layer", 100).unwrap(), b"Shared");

    // Unlinked but open: its bytes come back when it is closed.
    fs.open(own).unwrap();
    let at = fs.find(Fs::ROOT, b"work/own", false).unwrap();
    fs.unlink(&at, false, 0).unwrap();
    assert_eq!(fs.write(layer, 6, &[0; 50], 0), Ok(4));
    fs.close(own);
    assert_eq!(fs.write(layer, 10, &[0; 50], 0), Ok(50));

    for n in 0..5 {
        make(&mut fs, &format!("work/{n}")).unwrap();
    }
    assert_eq!(make(&mut fs, "work/5"), Err(Errno::Nospc));
    let at = fs.find(Fs::ROOT, b"work/0", false).unwrap();
    fs.unlink(&at, false, 0).unwrap();
    make(&mut fs, "work/5").unwrap();
}

#[test]
fn a_folder_never_becomes_its_own_parent() {
    let mut fs = fs();
    for path in [&b"work/a"[..], b"work/a/b"] {
        let at = fs.find(Fs::ROOT, path, false).unwrap();
        fs.create_dir(&at, 0).unwrap();
    }
    let from = fs.find(Fs::ROOT, b"work/a", false).unwrap();
    let to = fs.find(Fs::ROOT, b"work/a/b/c", false).unwrap();
    assert_eq!(fs.rename(&from, &to, 0), Err(Errno::Inval));
    let to = fs.find(Fs::ROOT, b"work/layer", false).unwrap();
    assert_eq!(fs.rename(&from, &to, 0), Err(Errno::Notdir));
    let to = fs.find(Fs::ROOT, b"work/moved", false).unwrap();
    fs.rename(&from, &to, 0).unwrap();
    assert!(fs.lookup(Fs::ROOT, b"work/moved/b", true).is_ok());
    assert_eq!(fs.lookup(Fs::ROOT, b"work/moved/b/../../a", true), Err(Errno::Noent));
}

#[test]
fn files_take_memory_of_all_runs() {
    let budget = Budget::new(50);
    let tree = || {
        let mut fs = Fs::new(100, 5, budget.share());
        fs.place_dir(b"/work", true);
        let file = make(&mut fs, "work/file").unwrap();
        (fs, file)
    };
    let (mut one, file) = tree();
    assert_eq!(one.write(file, 0, &[1; 40], 0), Ok(40));
    let (mut other, others) = tree();
    assert_eq!(other.write(others, 0, &[1; 20], 0), Err(Errno::Io));
    assert!(other.host_failed.get().is_some());
    one.resize(file, 10, 0).unwrap();
    assert_eq!(other.write(others, 0, &[1; 20], 0), Ok(20));
    drop((one, other));
    let (mut next, file) = tree();
    assert_eq!(next.write(file, 0, &[1; 60], 0), Err(Errno::Io));
    assert_eq!(next.write(file, 0, &[1; 50], 0), Ok(50));
}
