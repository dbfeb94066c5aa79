//! What the benchmark programs in Rust share. The same as `bench.h`, which has the words: keep the
//! two alike.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// A map whose values can be added to.
pub trait Subject: Sync {
    fn fill(&self, key: u64);
    fn read(&self, key: u64) -> u64;
    /// Reads, runs `section`, and writes what was read plus 1, with the key locked throughout.
    fn add(&self, key: u64, section: impl Fn());
}

pub fn key(index: u64) -> u64 {
    index.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn below(state: &mut u64, bound: u64) -> u64 {
    ((random(state) >> 32) * bound) >> 32
}

const DRAWS: usize = 1 << 20;
const THREADS_MAX: usize = 256;

fn draw_zipf(keys: u64) -> Vec<u32> {
    let theta = 0.99_f64;
    let alpha = 1.0 / (1.0 - theta);
    let zeta: f64 = (1..=keys).map(|i| (i as f64).powf(-theta)).sum();
    let zeta2 = 1.0 + 0.5_f64.powf(theta);
    let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - theta)) / (1.0 - zeta2 / zeta);
    let mut state = 42;
    let draw = |_| {
        let u = (random(&mut state) >> 11) as f64 / (1_u64 << 53) as f64;
        let uz = u * zeta;
        let rank = match uz {
            _ if uz < 1.0 => 0,
            _ if uz < zeta2 => 1,
            _ => (keys as f64 * (eta * u - eta + 1.0).powf(alpha)) as u64,
        };
        (rank.min(keys - 1) * 2_654_435_761 % keys) as u32
    };
    (0..DRAWS).map(draw).collect()
}

/// `SUBJECT WORKLOAD... [name=number]...`
pub struct Arguments {
    pub subject: String,
    words: Vec<String>,
}

impl Arguments {
    pub fn read() -> Self {
        let mut words = std::env::args().skip(1);
        let subject = words.next().expect("usage: program SUBJECT WORKLOAD... [name=number]...");
        Self { subject, words: words.collect() }
    }

    pub fn number(&self, name: &str, otherwise: u64) -> u64 {
        let value = |word: &String| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
        self.words.iter().find_map(value).unwrap_or(otherwise)
    }

    pub fn wants(&self, workload: &str) -> bool {
        self.words.iter().any(|word| word == workload)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    One,
    Held,
    Distinct,
    Uniform,
    Zipf,
}

/// One thread's count, apart from the others'.
#[repr(align(128))]
struct Ops(AtomicU64);

/// What all threads of the process have used.
fn cpu() -> Duration {
    // SAFETY: an all-zero rusage is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writable.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn rate(arguments: &Arguments, workload: &str, subject: &impl Subject) {
    let (name, threads) = workload.split_once(':').expect("name:threads");
    let threads: usize = threads.parse().expect("name:threads");
    let kind = match name {
        "one" => Kind::One,
        "held" => Kind::Held,
        "distinct" => Kind::Distinct,
        "uniform" => Kind::Uniform,
        "zipf" => Kind::Zipf,
        _ => panic!("{workload}"),
    };
    let crowd = if threads > 8 { arguments.number("crowd", 1) } else { 1 };
    let time = Duration::from_millis(arguments.number("ms", 200) * crowd);
    let keys = arguments.number("keys", 64);
    let draws = if kind == Kind::Zipf { draw_zipf(keys) } else { Vec::new() };
    let (start, stop) = (Barrier::new(threads + 1), AtomicBool::new(false));
    let counts: Vec<Ops> = (0..threads).map(|_| Ops(AtomicU64::new(0))).collect();
    let on_one_key = matches!(kind, Kind::One | Kind::Held);
    let read_before = if on_one_key { subject.read(key(0)) } else { 0 };

    let work = |index: usize| {
        let ops = &counts[index].0;
        let mut state = index as u64 * 1_000_003 + 7;
        let mut draw = index * (DRAWS / THREADS_MAX);
        let section = || {
            if kind == Kind::Held {
                thread::sleep(Duration::from_millis(1));
            }
        };
        start.wait();
        while !stop.load(Relaxed) {
            let place = match kind {
                Kind::Uniform => below(&mut state, keys),
                Kind::Zipf => {
                    draw += 1;
                    u64::from(draws[(draw - 1) % DRAWS])
                }
                Kind::Distinct => index as u64,
                Kind::One | Kind::Held => 0,
            };
            subject.add(key(place), section);
            ops.store(ops.load(Relaxed) + 1, Relaxed);
        }
    };

    let snapshot = || counts.iter().map(|ops| ops.0.load(Relaxed)).collect::<Vec<_>>();
    let (elapsed, used, ops) = thread::scope(|scope| {
        for index in 0..threads {
            let work = &work;
            scope.spawn(move || work(index));
        }
        start.wait();
        thread::sleep(time / 4); // warm up
        let (cpu_before, began, before) = (cpu(), Instant::now(), snapshot());
        thread::sleep(time);
        let (elapsed, used, after) = (began.elapsed(), cpu() - cpu_before, snapshot());
        stop.store(true, Relaxed);
        let ops: Vec<u64> =
            after.iter().zip(&before).map(|(after, before)| after - before).collect();
        (elapsed, used, ops)
    });
    if on_one_key {
        let done: u64 = snapshot().iter().sum();
        assert_eq!(subject.read(key(0)) - read_before, done, "operations were lost");
    }

    let total: u64 = ops.iter().sum();
    let (most, least) = (ops.iter().max().expect("one"), ops.iter().min().expect("one"));
    let seconds = elapsed.as_secs_f64();
    println!(
        "{{\"subject\":\"{}\",\"workload\":\"{workload}\",\"threads\":{threads},\"rate\":{:.1},\
         \"ns\":{:.2},\"max_min\":{:.3},\"cpu\":{:.4}}}",
        arguments.subject,
        total as f64 / seconds,
        seconds * 1e9 * threads as f64 / total.max(1) as f64,
        if total > 0 { *most as f64 / (*least).max(1) as f64 } else { 1e9 },
        used.as_secs_f64() / seconds,
    );
}

/// Fills the subject, and runs every word of the command line that has a colon in it.
pub fn run(arguments: &Arguments, subject: &impl Subject) {
    for index in 0..arguments.number("keys", 64) {
        subject.fill(key(index));
    }
    for workload in arguments.words.iter().filter(|word| word.contains(':')) {
        rate(arguments, workload, subject);
    }
}

/// Memory in bytes: handed out by malloc, and resident.
#[derive(Clone, Copy)]
pub struct Memory(i64, i64);

impl Memory {
    pub fn now() -> Self {
        // SAFETY: no precondition.
        let info = unsafe { libc::mallinfo2() };
        let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
        let pages: i64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("statm");
        Self((info.uordblks + info.hblkhd) as i64, pages * 4096)
    }

    /// Prints what came since, divided by `parts`.
    pub fn print_since(self, subject: &str, workload: &str, parts: u64) {
        let Self(heap, resident) = Self::now();
        println!(
            "{{\"subject\":\"{subject}\",\"workload\":\"{workload}\",\"heap\":{:.2},\
             \"resident\":{:.2}}}",
            (heap - self.0) as f64 / parts as f64,
            (resident - self.1) as f64 / parts as f64,
        );
    }
}
