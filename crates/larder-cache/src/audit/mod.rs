//! The audit: a share of the memory hits is looked at behind the answer.
//!
//! A memory hit is served on the word of this replica's mirror. The audit asks Redis whether that
//! word was right, and counts what it finds: [`AuditCounts`]. The count of illegal hits stays zero
//! unless larder breaks its promise, or something that the promise rests on does not hold.
//!
//! Looked at are hits that the bus vouched for. A stale answer, and one within `disconnected_ttl`,
//! is not: it may be older than `max_staleness`.
//!
//! Promises:
//! - A hit that is not looked at costs one number of its thread: no lock, nothing that threads
//!   share. One that is looked at never waits for a lock, or for Redis. The first one starts the
//!   audit's thread.
//! - A replica looks at no more than [`BATCH`] hits in [`EVERY`]: 500 a second. That takes one
//!   script, and a page of the log if a name was invalidated lately. At most [`MOST_WAITING`] hits
//!   wait, and the others are counted as skipped.
//! - A question that Redis does not answer is asked again later.
//!
//! [`Audit`] chooses the hits and holds those that wait. [`Auditor`](worker::Auditor) asks about
//! them on a thread of its own. [`judge`](crate::coherence::judge) decides.

mod worker;

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use self::worker::Auditor;
use crate::clock::{Clock, Micros};
use crate::coherence::{InvalidationTarget, Mirror, Part, Scripts, Verdict};
use crate::entry::Entry;
use crate::random::random;
use crate::redis_tier::pool::RedisPool;
use crate::thread;

/// How many hits one command asks about.
const BATCH: usize = 25;
/// The pause after each batch, and between two pages of the log.
const EVERY: Duration = Duration::from_millis(50);
/// How many hits wait for their audit, at most.
const MOST_WAITING: usize = 1000;

thread_local!(static COUNTDOWN: Cell<Countdown> = const { Cell::new(Countdown { audit: 0, hits: 0 }) });

/// How many hits this thread still passes over for this audit.
#[derive(Clone, Copy)]
struct Countdown {
    audit: u32,
    hits: u32,
}

/// What the audit of memory hits found on this replica since it started. See
/// [`CoherenceSettings::audit`](crate::CoherenceSettings::audit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Hits whose copy was not invalidated hard since its load.
    pub same: u64,
    /// Hits of a copy whose first hard invalidation was not older than `max_staleness`, or came
    /// after the hit.
    pub newer: u64,
    /// Hits of a copy that was invalidated hard longer ago than `max_staleness`. Always zero,
    /// unless larder or its machine is broken.
    pub illegal: u64,
    /// Hits that the record in Redis does not tell about any more.
    pub unknown: u64,
    /// Hits that were chosen and not looked at, because too many waited.
    pub skipped: u64,
    /// How many hits wait for Redis to answer now.
    pub waiting: u64,
}

/// A hit that is to be looked at.
pub(super) struct Question {
    /// The key of the copy.
    key: InvalidationTarget,
    /// When the reader came, on this replica's clock.
    at: Micros,
    parts: Box<[Part]>,
}

impl Question {
    fn new(entry: &Entry, at: Micros) -> Option<Question> {
        Some(Question {
            key: entry.own.names.last()?.clone(),
            at,
            parts: entry.dependencies().map(Part::from).collect(),
        })
    }
}

/// See the module.
pub(crate) struct Audit {
    /// Tells the audits of one process apart.
    id: u32,
    /// The logarithm of the share of hits that is not looked at.
    ln_passed_over: f64,
    mirror: Arc<Mirror>,
    /// Protects the hits that wait, and the auditor until its thread has started.
    waiting: Mutex<Waiting>,
    /// Notified when a hit begins to wait, and when the audit is closed. Its lock is `waiting`.
    work: Condvar,
    counts: Counts,
}

struct Waiting {
    questions: VecDeque<Question>,
    /// How many the thread has taken and not answered yet.
    taken: usize,
    /// `None`: its thread was started.
    auditor: Option<Auditor>,
    closed: bool,
}

#[derive(Default)]
struct Counts {
    same: AtomicU64,
    newer: AtomicU64,
    illegal: AtomicU64,
    unknown: AtomicU64,
    skipped: AtomicU64,
}

impl Audit {
    /// The audit of this share of the hits, which is more than zero.
    pub(crate) fn new(
        share: f64,
        max_staleness: Micros,
        mirror: Arc<Mirror>,
        clock: Arc<Clock>,
        scripts: Arc<Scripts>,
        pool: RedisPool,
    ) -> Arc<Audit> {
        static AUDITS: AtomicU32 = AtomicU32::new(1);
        let auditor = Auditor {
            max_staleness,
            clock,
            scripts,
            pool,
        };
        Arc::new(Audit {
            id: AUDITS.fetch_add(1, Ordering::Relaxed),
            ln_passed_over: (-share).ln_1p(),
            mirror,
            waiting: Mutex::new(Waiting {
                questions: VecDeque::new(),
                taken: 0,
                auditor: Some(auditor),
                closed: false,
            }),
            work: Condvar::new(),
            counts: Counts::default(),
        })
    }

    /// A reader who came at `at` is served `entry` from memory, on the word of the bus.
    #[inline(always)]
    pub(crate) fn hit(self: &Arc<Audit>, entry: &Entry, at: Micros) {
        let countdown = COUNTDOWN.get();
        if countdown.audit == self.id && countdown.hits > 0 {
            COUNTDOWN.set(Countdown {
                hits: countdown.hits - 1,
                ..countdown
            });
        } else {
            self.count_down_again(countdown, entry, at);
        }
    }

    /// The countdown is over, or is of another cache. The number of hits until the next one that is
    /// looked at has no memory, so it may be drawn at any time.
    #[cold]
    #[inline(never)]
    fn count_down_again(self: &Arc<Audit>, countdown: Countdown, entry: &Entry, at: Micros) {
        let drawn = self.passed_over();
        let (chosen, hits) = if countdown.audit == self.id {
            (true, drawn)
        } else if drawn == 0 {
            (true, self.passed_over())
        } else {
            // This hit is the first of those that are passed over.
            (false, drawn - 1)
        };
        COUNTDOWN.set(Countdown {
            audit: self.id,
            hits,
        });
        if chosen {
            self.choose(entry, at);
        }
    }

    /// How many hits to pass over before one is looked at. Geometrically distributed, so each hit
    /// has the same chance.
    fn passed_over(&self) -> u32 {
        // In (0, 1], by the 53 bits that a double can tell apart.
        let uniform = ((random() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        (uniform.ln() / self.ln_passed_over) as u32
    }

    fn choose(self: &Arc<Audit>, entry: &Entry, at: Micros) {
        // Alone, there is no record that it could be compared with.
        if self.mirror.is_alone() {
            return;
        }
        // The thread holds the lock for a moment only. A reader does not wait even for that.
        let mut waiting = self.waiting.try_lock();
        let room = waiting
            .as_deref_mut()
            .filter(|waiting| waiting.questions.len() + waiting.taken < MOST_WAITING);
        let Some(waiting) = room else {
            self.counts.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        waiting.questions.extend(Question::new(entry, at));
        self.work.notify_one();
        if let Some(auditor) = waiting.auditor.take() {
            let audit = self.clone();
            if let Err(error) = thread::spawn("audit", move || auditor.run(&audit)) {
                log::error!("{error}, so no memory hit is audited");
            }
        }
    }

    /// What was found so far.
    pub(crate) fn counts(&self) -> AuditCounts {
        // Under the lock, as in `count`.
        let waiting = self.waiting.lock();
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        AuditCounts {
            same: get(&self.counts.same),
            newer: get(&self.counts.newer),
            illegal: get(&self.counts.illegal),
            unknown: get(&self.counts.unknown),
            skipped: get(&self.counts.skipped),
            waiting: (waiting.questions.len() + waiting.taken) as u64,
        }
    }

    /// Ends the thread. What waits is not looked at any more.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.work.notify_all();
    }

    /// The hits that wait, up to a batch. Waits until there is one. `None` when it is closed.
    fn take(&self) -> Option<Vec<Question>> {
        let mut waiting = self.waiting.lock();
        self.work.wait_while(&mut waiting, |waiting| {
            waiting.questions.is_empty() && !waiting.closed
        });
        if waiting.closed {
            return None;
        }
        let count = waiting.questions.len().min(BATCH);
        waiting.taken = count;
        Some(waiting.questions.drain(..count).collect())
    }

    /// Counts what was found of the hits that were taken.
    fn count(&self, verdicts: &[Verdict]) {
        // Under the lock, so that a hit is never counted as waiting and as found.
        let mut waiting = self.waiting.lock();
        waiting.taken = 0;
        for verdict in verdicts {
            let count = match verdict {
                Verdict::Same => &self.counts.same,
                Verdict::Newer => &self.counts.newer,
                Verdict::Unknown => &self.counts.unknown,
                Verdict::Illegal(_) => &self.counts.illegal,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets this time pass. Returns `false` when it is closed.
    fn pause(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut waiting = self.waiting.lock();
        while !waiting.closed && !self.work.wait_until(&mut waiting, end).timed_out() {}
        !waiting.closed
    }
}
