//! Machine code on disk: used again, distrusted, made anew.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use super::*;

/// How often the component had to be brought.
#[derive(Clone, Default)]
struct Fetches(Arc<AtomicU32>);

impl Fetches {
    async fn load(&self, bed: &TestBed, component: &[u8]) -> Result<Arc<dyn Guest>, LoadError> {
        let fetch = async || {
            self.0.fetch_add(1, Relaxed);
            Ok(component.to_vec())
        };
        bed.sandbox.load(&Digest::of(component), fetch).await
    }

    fn count(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

fn files(bed: &TestBed) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(bed.dir.path().join("cache")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn restarted(bed: TestBed) -> TestBed {
    restarted_after(bed, || {})
}

/// With something done to the files while no host has them mapped.
fn restarted_after(bed: TestBed, meanwhile: impl Fn()) -> TestBed {
    let TestBed { sandbox, dir, .. } = bed;
    drop(sandbox);
    meanwhile();
    TestBed::within(dir, |_| {})
}

#[tokio::test]
async fn machine_code_outlives_the_process_and_is_private() {
    let (bed, fetches) = (TestBed::new(), Fetches::default());
    let component = WatGuest::default().build();
    fetches.load(&bed, &component).await.unwrap();
    fetches.load(&bed, &component).await.unwrap();
    assert_eq!(fetches.count(), 1);
    assert_eq!(files(&bed).len(), 2);
    for file in files(&bed) {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }

    let bed = restarted(bed);
    let guest = fetches.load(&bed, &component).await.unwrap();
    assert_eq!(fetches.count(), 1);
    assert_eq!(result(bed.run(&guest, nothing()).await), "null");
}

#[tokio::test]
async fn damaged_machine_code_is_not_run_but_made_anew() {
    let (bed, fetches) = (TestBed::new(), Fetches::default());
    let component = WatGuest::default().build();
    fetches.load(&bed, &component).await.unwrap();
    let [code, hash] = &files(&bed)[..] else { panic!("{:?}", files(&bed)) };

    let damages: [&dyn Fn(); 5] = [
        &|| {
            let mut bytes = fs::read(code).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(code, bytes).unwrap();
        },
        &|| fs::write(code, b"").unwrap(),
        &|| fs::remove_file(code).unwrap(),
        &|| fs::remove_file(hash).unwrap(),
        &|| fs::write(hash, "0").unwrap(),
    ];
    let mut bed = bed;
    for (n, damage) in damages.iter().enumerate() {
        bed = restarted_after(bed, damage);
        let guest = fetches.load(&bed, &component).await.unwrap();
        assert_eq!(fetches.count(), 2 + n as u32);
        assert_eq!(result(bed.run(&guest, nothing()).await), "null");
    }
}

/// Machine code of other settings has another name, so it is not even looked at; if one were put
/// in its place, hash and all, wasmtime itself refuses it.
#[tokio::test]
async fn machine_code_of_another_version_is_made_anew() {
    let (bed, fetches) = (TestBed::new(), Fetches::default());
    let component = WatGuest::default().build();
    fetches.load(&bed, &component).await.unwrap();
    let [code, hash] = &files(&bed)[..] else { panic!() };

    let other = wasmtime::Engine::new(wasmtime::Config::new().epoch_interruption(false)).unwrap();
    let foreign = other.precompile_component(&component).unwrap();
    let bed = restarted_after(bed, || {
        fs::write(code, &foreign).unwrap();
        fs::write(hash, hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&foreign))).unwrap();
    });
    let guest = fetches.load(&bed, &component).await.unwrap();
    assert_eq!(fetches.count(), 2);
    assert_eq!(result(bed.run(&guest, nothing()).await), "null");

    // What has another version's name goes at the next start, and what was left half-made.
    let [code, _] = &files(&bed)[..] else { panic!() };
    let old = code.with_file_name(format!("{}-0123456789abcdef.cwasm", Digest::of(b"")));
    fs::write(&old, b"old").unwrap();
    fs::write(code.with_file_name("scratch-1-1"), b"half").unwrap();
    let bed = restarted(bed);
    assert_eq!(files(&bed).len(), 2);
}

#[tokio::test]
async fn a_component_that_is_not_what_it_was_is_not_loaded() {
    let bed = TestBed::new();
    let digest = Digest::of(&WatGuest::default().build());
    let other = WatGuest::default().run("unreachable").build();
    let Err(error) = bed.sandbox.load(&digest, async || Ok(other)).await else { panic!("loaded") };
    assert!(matches!(error, LoadError::Fetch { .. }), "{error}");
    let Err(error) = bed.sandbox.load(&digest, async || anyhow::bail!("the disk is gone")).await else {
        panic!("loaded")
    };
    assert_eq!(
        error.to_string(),
        format!("the component of module {digest} could not be had: the disk is gone")
    );
    assert_eq!(bed.sandbox.loaded(), 0);
}

#[tokio::test]
async fn a_module_that_is_not_accepted_any_more_says_so() {
    let bed = TestBed::new();
    let component = wat::parse_str("(component)").unwrap();
    let Err(error) = bed.sandbox.load(&Digest::of(&component), async || Ok(component.clone())).await else {
        panic!("loaded")
    };
    assert!(matches!(error, LoadError::Rejected { .. }), "{error}");
}

#[tokio::test]
async fn what_is_forgotten_is_gone_but_goes_on_where_it_runs() {
    let (bed, fetches) = (TestBed::new(), Fetches::default());
    let component = WatGuest::default().build();
    let guest = fetches.load(&bed, &component).await.unwrap();
    bed.sandbox.forget(&Digest::of(&component));
    assert_eq!(files(&bed).len(), 0);
    assert_eq!(result(bed.run(&guest, nothing()).await), "null");
    fetches.load(&bed, &component).await.unwrap();
    assert_eq!(fetches.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_the_same_module_at_once_gets_it_from_one_compilation() {
    let (bed, fetches) = (Arc::new(TestBed::new()), Fetches::default());
    let component = Arc::new(WatGuest::default().build());
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (bed, fetches, component) = (bed.clone(), fetches.clone(), component.clone());
            tokio::spawn(async move { fetches.load(&bed, &component).await.map(drop) })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(fetches.count(), 1);
}
