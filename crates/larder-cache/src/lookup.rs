//! The read line, in order: memory, join a flight, Redis, lease, load, fill.
//!
//! [`begin`] looks into memory for a part and joins a flight. Its leader goes on as a [`Lookup`],
//! which is moved from stage to stage, and with it the guard of the flight: wherever it is lost,
//! the flight ends. Two stages are callbacks: [`Lookup::on_read`] on a thread that reads from
//! Redis, and [`Lookup::on_turn`] on a loader's thread. No stage waits on a thread for another
//! replica, nor keeps a permit to load: the lookup comes back to the Redis readers' queue after a
//! pause.
//!
//! The lease says whether this replica loads at all, and gives the clock of the load, before the
//! source is asked. What the source brings fills Redis, then memory. A failure gives the lease
//! back, and a stale copy stands in as far as policy allows.
//!
//! A [`Load`] runs on a loader's thread. [`begin_to_run`] is for readers that run it themselves:
//! the flight hands it over once it has the lease, and goes on at [`Lookup::has_run`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::answer::{Answer, Trace};
use super::clock::micros;
use super::coherence::{Dependency, InvalidationTarget, Stamp, Standing};
use super::composition::Composite;
use super::entry::{Entry, Extras, Value};
use super::envelope;
use super::error::LoadError;
use super::fair_queue::Caller;
use super::freshness::{Decision, Evidence, LoadFacts, may_join};
use super::interest::{Behalf, Step};
use super::load_result::LoadResult;
use super::loaders::{Job, Permit, Turn};
use super::object::{Hold, Object};
use super::outcome::{Outcome, Staleness};
use super::policy::{Lifetime, Policy};
use super::random::random;
use super::redis_tier::reads::{LeaseState, Read};
use super::redis_tier::{Filled, Lease};
use super::request::{CacheItem, Load, LoadContext, Loaded, Producer, Request, Revalidation};
use super::single_flight::{Flight, Leader, Ran, Runner, Ticket};
use super::tally::Counts;
use super::tiers::Tiers;

/// The first and the longest pause between two looks for what another replica is loading.
const PAUSES: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(100));
/// The load of another replica is waited for while Redis cannot tell whether it still runs: for
/// this part of the time that the load may take. Then this replica loads itself. So a short outage
/// costs no second call of a slow source, and a long one delays readers by little.
const PATIENCE: u32 = 10;

/// What a reader accepts for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// Any copy that may be served, and any load under way that will bring one. The evidence is
    /// what the reader brings: [`Evidence::Verified`] if it has just asked Redis.
    Copies(Evidence),
    /// Only the result of a load that begins now.
    NewLoad,
}

/// A claim to the answer of `request`. Begins the load if there is none to join. `hold`: makes the
/// object that memory holds in place of the bytes of a value, whether they come from Redis or from
/// the load; `None`: memory holds the bytes. Does not block.
pub(crate) fn begin(
    tiers: &Arc<Tiers>,
    request: Request,
    behalf: &Behalf,
    accepts: Accepts,
    hold: Option<Hold>,
) -> Ticket {
    let Request { item, producer } = request;
    let is_part = matches!(behalf, Behalf::Composite(_));
    // A reader has looked into memory already.
    if is_part && accepts != Accepts::NewLoad {
        let now = tiers.clock.now();
        if let Some(answer) = tiers.look(item.key.as_str(), &item.policy, None, now) {
            return Ticket::ready(answer);
        }
    }
    let is_new_load = accepts == Accepts::NewLoad;
    let (key, policy) = (item.key.clone(), item.policy.clone());
    let lead = {
        let tiers = tiers.clone();
        move |leader| lead(tiers, leader, item, producer, is_part, accepts, hold)
    };
    let joinable = |flight: &Flight| is_joinable(tiers, flight, accepts, &policy);
    let flights = &tiers.flights;
    flights.join(&key, behalf, joinable, is_new_load, lead)
}

/// The same for a reader of `item` that runs the load itself if it comes to that. Memory was looked
/// into. Does not block.
pub(crate) fn begin_to_run(
    tiers: &Arc<Tiers>,
    item: CacheItem,
    caller: Caller,
    hold: Option<Hold>,
) -> Runner {
    let accepts = Accepts::Copies(Evidence::NotAsked);
    let (key, policy) = (item.key.clone(), item.policy.clone());
    let lead = {
        let tiers = tiers.clone();
        move |leader| {
            let targets = item.targets().collect();
            let Some(start) = Start::look_again(&tiers, leader, &item, targets, accepts) else {
                return;
            };
            Lookup::new(tiers, start, item, false, hold).start(Loader::OfRunner, accepts);
        }
    };
    let joinable = |flight: &Flight| is_joinable(tiers, flight, accepts, &policy);
    let behalf = Behalf::Reader(caller);
    tiers.flights.join_to_run(&key, &behalf, joinable, lead)
}

/// Whether the result of a flight may be served to this reader: nothing was invalidated since its
/// load began, and this replica would have heard of it. While Redis cannot be asked, a load under
/// way is as good as a copy in memory whose load began then: a slow source is not asked twice.
fn is_joinable(tiers: &Tiers, flight: &Flight, accepts: Accepts, policy: &Policy) -> bool {
    let Accepts::Copies(brought) = accepts else {
        return false;
    };
    let now = tiers.clock.now();
    flight
        .look(|dependency, began, unverified| {
            let evidence = match tiers.evidence(now) {
                Evidence::Trusted => Evidence::Trusted,
                _ if brought == Evidence::Verified => Evidence::Verified,
                // It asks its source or Redis itself, and is no older than readers have to bear.
                _ if !unverified && began.elapsed() < tiers.max_staleness => Evidence::Verified,
                unproven => unproven,
            };
            let load = LoadFacts {
                standing: tiers.mirror.standing(std::iter::once(dependency)),
                began: if unverified { 0 } else { tiers.clock.at(began) },
                trust_until: tiers.mirror.trust_until(),
            };
            may_join(load, evidence, policy, now)
        })
        .unwrap_or(true)
}

/// The leader's way, from memory on. Does not block.
fn lead(
    tiers: Arc<Tiers>,
    leader: Leader,
    item: CacheItem,
    producer: Producer,
    is_part: bool,
    accepts: Accepts,
    hold: Option<Hold>,
) {
    let targets = producer.targets(&item);
    let Some(start) = Start::look_again(&tiers, leader, &item, targets, accepts) else {
        return;
    };
    match producer {
        Producer::Load(load) => {
            Lookup::new(tiers, start, item, is_part, hold).start(Loader::OfThread(load), accepts)
        }
        Producer::Compose(composition) => {
            let Start {
                leader,
                targets,
                in_memory,
            } = start;
            let composite = Composite::new(&tiers, item, targets, &composition);
            // Its parts may come from anywhere.
            leader.set_unverified(true);
            let tickets = composition.parts.into_iter().map(|part| {
                let behalf = Behalf::Composite(leader.interest().clone());
                begin(&tiers, part, &behalf, accepts, None)
            });
            let tickets = tickets.collect();
            composite.gather(leader, tickets, in_memory, composition.last_resort);
        }
    }
}

/// The begin of a flight that memory has no answer for.
struct Start {
    leader: Leader,
    /// What the value depends on.
    targets: Arc<[InvalidationTarget]>,
    /// A copy that may not be served as it is.
    in_memory: Option<Arc<Entry>>,
}

impl Start {
    /// Stamps the flight and looks into memory again:
    ///
    /// 1. This reader finds nothing in memory.
    /// 2. Another reader's flight of the same key fills memory and ends.
    /// 3. This reader finds no flight in the table, and leads a new one.
    ///
    /// Without this look, a second load would follow the first one for nothing. `None`: memory has
    /// the answer, and the flight has ended.
    fn look_again(
        tiers: &Tiers,
        leader: Leader,
        item: &CacheItem,
        targets: Arc<[InvalidationTarget]>,
        accepts: Accepts,
    ) -> Option<Start> {
        leader.stamp(tiers.mirror.dependency(tiers.mirror.stamp(), &targets));
        let in_memory = match accepts {
            Accepts::Copies(_) => tiers.memory.get(item.key.as_str()),
            Accepts::NewLoad => None,
        };
        let now = tiers.clock.now();
        let served = in_memory
            .clone()
            .and_then(|entry| tiers.serve(entry, &item.policy, None, now));
        if let Some(answer) = served {
            leader.end(Ok(answer));
            return None;
        }
        Some(Start {
            leader,
            targets,
            in_memory,
        })
    }
}

/// Who asks the source.
enum Loader {
    /// A thread of the loaders.
    OfThread(Load),
    /// A reader: see `single_flight/runner.rs`.
    OfRunner,
}

impl Loader {
    /// How long the load of another replica is waited for while Redis cannot tell whether it still
    /// runs. Nobody says how long the load of a reader may take: ten seconds, as by default.
    fn patience(&self) -> Duration {
        let limit = match self {
            Loader::OfThread(load) => load.limit,
            Loader::OfRunner => Duration::from_secs(10),
        };
        limit / PATIENCE
    }
}

/// A load that has begun.
struct Begun {
    /// What the value depends on, with the stamp of the load.
    own: Dependency,
    /// The token of its lease.
    token: String,
}

/// One flight on its way: see the module.
struct Lookup {
    tiers: Arc<Tiers>,
    leader: Leader,
    item: CacheItem,
    /// Whether a composite looks it up, not a reader.
    is_part: bool,
    /// What the value depends on: its tags and its own key.
    targets: Arc<[InvalidationTarget]>,
    hold: Option<Hold>,
    began: Instant,
    /// The best copy that is past its TTL.
    stale: Option<Arc<Entry>>,
    /// The newest copy at hand, even if it is too old to be served, or invalid: the source may
    /// confirm it, and what is loaded is compared with it.
    newest: Option<Arc<Entry>>,
    /// Whether a stale copy was offered to the readers.
    is_refresh: bool,
    /// The evidence for the copies at hand if the bus is not trusted: what Redis has said in this
    /// lookup.
    heard: Evidence,
    redis_took: Option<Duration>,
    /// The id of the load whose envelope was seen in Redis.
    seen: Bytes,
    elsewhere: Elsewhere,
    /// How long to wait before the next look for what another replica loads.
    pause: Duration,
}

/// What is known of loads of the key on other replicas.
#[derive(Debug)]
enum Elsewhere {
    Unknown,
    /// This load is waited for, or was.
    WaitedFor(OtherLoad),
    /// A load has filled the key during this lookup, and was not waited for.
    Filled,
}

/// A load on another replica.
#[derive(Debug)]
struct OtherLoad {
    /// The token of its lease.
    token: String,
    /// What the value depends on, as of the moment when the lease was seen first.
    own: Dependency,
    /// Redis was asked in vain, or has lost the lease. The load is taken for a running one until
    /// then.
    presumed_until: Option<Instant>,
}

impl OtherLoad {
    /// Whether the load still runs, if Redis says this of the lease now. `patience`: for how long
    /// it is presumed to run without a word from Redis.
    fn runs(&mut self, lease: &LeaseState, patience: Duration) -> bool {
        match lease {
            LeaseState::Held(token) => {
                self.presumed_until = None;
                *token == self.token
            }
            LeaseState::Failed(..) => false,
            // Its holder takes a lease again that was lost in an outage.
            LeaseState::Free if self.presumed_until.is_none() => false,
            LeaseState::Free | LeaseState::Unknown => {
                let now = Instant::now();
                now < *self.presumed_until.get_or_insert(now + patience)
            }
        }
    }
}

/// Whether this replica is to load.
enum LeaseOutcome {
    /// This replica is to load, and stamps the load with this.
    Load(Stamp),
    /// Another load has brought this meanwhile.
    Answer(Answer),
    /// Another replica loads it now.
    LoadingElsewhere,
    /// The load on another replica that was waited for has failed.
    Failed(LoadError),
}

impl Lookup {
    fn new(
        tiers: Arc<Tiers>,
        start: Start,
        item: CacheItem,
        is_part: bool,
        hold: Option<Hold>,
    ) -> Lookup {
        Lookup {
            tiers,
            leader: start.leader,
            item,
            is_part,
            targets: start.targets,
            hold,
            began: Instant::now(),
            stale: start.in_memory.clone(),
            newest: start.in_memory,
            is_refresh: false,
            heard: Evidence::NotAsked,
            redis_took: None,
            seen: Bytes::new(),
            elsewhere: Elsewhere::Unknown,
            pause: PAUSES.0,
        }
    }

    /// The first stage. Does not block.
    fn start(self, load: Loader, accepts: Accepts) {
        if accepts == Accepts::NewLoad {
            return self.submit(load);
        }
        // A resource without the Redis tier has nothing to read there, unless a copy from memory
        // has to be verified.
        let verify = self.stale.is_some() && self.evidence() == Evidence::NotAsked;
        if self.uses_redis() || verify {
            self.read(load, None);
        } else {
            self.refresh(load);
        }
    }

    /// Reads the value from Redis. `again`: after this pause, because another replica loads it.
    fn read(self, load: Loader, again: Option<Duration>) {
        let (tiers, key) = (self.tiers.clone(), self.item.key.clone());
        let asked_at = Instant::now() + again.unwrap_or_default();
        // Without trust the mirror may not know what was invalidated: Redis is asked for that, too.
        let trusted = tiers.mirror.is_trusted(tiers.clock.now());
        let checked = (!trusted).then(|| self.targets.clone());
        self.leader.set_unverified(trusted);
        tiers.redis.read(&key, checked, again, move |read, lease| {
            self.on_read(load, read, &lease, trusted, asked_at);
        });
    }

    /// What Redis has, on a reading thread. `trusted`: the mirror was, as Redis was asked, so the
    /// targets were not asked for.
    fn on_read(
        mut self,
        load: Loader,
        read: Read,
        lease: &LeaseState,
        trusted: bool,
        asked_at: Instant,
    ) {
        let answered = !matches!(read, Read::Down);
        if answered {
            let took = Instant::now().saturating_duration_since(asked_at);
            self.redis_took = Some(self.redis_took.unwrap_or_default() + took);
        }
        if !trusted {
            self.hear(answered);
        }
        match read {
            // Trust ended while the reply was on its way: what the mirror lets pass now proves
            // nothing.
            Read::Hit(_) if trusted && self.evidence() != Evidence::Trusted => {
                let waits = matches!(self.elsewhere, Elsewhere::WaitedFor(_));
                self.read(load, waits.then_some(Duration::ZERO));
            }
            Read::Hit(bytes) => match self.look_into(&bytes) {
                Some(answer) => self.leader.end(Ok(answer)),
                None => self.wait_or_load(load, lease),
            },
            Read::Miss | Read::Down => match self.verified_copy().filter(|_| !trusted) {
                Some(answer) => self.leader.end(Ok(answer)),
                None => self.wait_or_load(load, lease),
            },
        }
    }

    /// No tier has a fresh copy: waits on if another replica still loads one, else loads.
    fn wait_or_load(mut self, load: Loader, lease: &LeaseState) {
        let Elsewhere::WaitedFor(other) = &mut self.elsewhere else {
            return self.refresh(load);
        };
        if let LeaseState::Failed(token, why) = lease
            && *token == other.token
        {
            let why = why.clone();
            return self.failed(why, None);
        }
        // What was invalidated since is not waited for: another load may begin.
        let standing = self.tiers.mirror.standing(std::iter::once(&other.own));
        if standing == Standing::Valid
            && other.runs(lease, load.patience())
            && !self.tiers.redis.is_closed()
        {
            self.wait(load);
        } else {
            self.refresh(load);
        }
    }

    /// Another replica loads the value: looks again after a pause, as long as somebody waits. Each
    /// look is a full read.
    fn wait(mut self, load: Loader) {
        if self.leader.interest().close_if_unwanted(Step::Begin) {
            return self.leader.end(Err(LoadError::Overloaded));
        }
        self.offer_stale();
        self.leader.loads_elsewhere();
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSES.1);
        self.read(load, Some(pause));
    }

    /// Notes whether Redis has said what was invalidated of the targets.
    fn hear(&mut self, answered: bool) {
        self.heard = if answered {
            Evidence::Verified
        } else {
            Evidence::Unreachable
        };
    }

    /// What vouches for the copies at hand now.
    fn evidence(&self) -> Evidence {
        let now = self.tiers.clock.now();
        self.tiers.evidence_after(self.heard, now)
    }

    /// What may be done with a copy at hand now.
    fn decide(&self, entry: &Entry) -> Decision {
        let now = self.tiers.clock.now();
        let evidence = self.tiers.evidence_after(self.heard, now);
        self.tiers.decide(entry, evidence, &self.item.policy, now)
    }

    /// The copy that was in memory, if it may be served now that Redis was asked.
    fn verified_copy(&self) -> Option<Answer> {
        let copy = self.stale.as_ref()?;
        (self.decide(copy) == Decision::Serve)
            .then(|| self.answer(copy.clone(), Outcome::MemoryHit))
    }

    /// The answer that these bytes from Redis give, if they are fresh. If not, they are noted for
    /// what they are good for. Redis has said what was invalidated, or the mirror was trusted.
    fn look_into(&mut self, bytes: &Bytes) -> Option<Answer> {
        self.seen = Bytes::copy_from_slice(envelope::load_id(bytes));
        let tiers = &self.tiers;
        let entry = tiers.copy_of(&self.item, &self.targets, self.hold.as_ref(), bytes)?;
        let decision = tiers.decide_redis_copy(&entry, &self.item.policy);
        if decision == Decision::Serve {
            let entry = tiers.keep(&self.item, entry);
            let outcome = match self.elsewhere {
                Elsewhere::Unknown => Outcome::RedisHit,
                Elsewhere::WaitedFor(_) | Elsewhere::Filled => Outcome::Collapsed,
            };
            return Some(self.answer(entry, outcome));
        }
        let entry = Arc::new(entry);
        let is_newer = |than: &Arc<Entry>| than.loaded_at <= entry.loaded_at;
        if self.newest.as_ref().is_none_or(is_newer) {
            self.newest = Some(entry.clone());
        }
        if decision.allows_use() && self.stale.as_ref().is_none_or(is_newer) {
            self.stale = Some(entry);
        }
        None
    }

    /// No tier has a fresh copy: offers a stale one, and loads.
    fn refresh(mut self, load: Loader) {
        self.offer_stale();
        self.submit(load);
    }

    /// Serves the stale copy to those who wait, as far as policy allows.
    fn offer_stale(&mut self) {
        let Some(entry) = self.stale.clone().filter(|_| !self.is_refresh) else {
            return;
        };
        let (evidence, now) = (self.evidence(), self.tiers.clock.now());
        let policy = &self.item.policy;
        let decision = self.tiers.decide(&entry, evidence, policy, now);
        let copy = StaleCopy {
            tiers: self.tiers.clone(),
            policy: self.item.policy.clone(),
            entry,
            heard: self.heard,
            trace: self.trace(),
        };
        match decision {
            Decision::Serve | Decision::ServeAndRefresh => {
                self.is_refresh = true;
                self.leader.offer(move || {
                    copy.give(Decision::ServeAndRefresh, Staleness::WhileRevalidate)
                });
            }
            Decision::Refuse(why) if !why.lacks_evidence() => self.stale = None,
            // A copy that was refused for want of evidence may be given later in the flight: there
            // may be evidence by then.
            Decision::OnlyIfLoadFails | Decision::Refuse(_) => self
                .leader
                .set_fallback(move || copy.give(Decision::OnlyIfLoadFails, Staleness::SoftTimeout)),
        }
    }

    /// Waits for a permit, unless the load is not to be tried now.
    fn submit(self, load: Loader) {
        let (tiers, now) = (&self.tiers, self.tiers.clock.now());
        let is_lifted = |at| tiers.is_invalidated_since(at, &self.targets);
        if let Some(error) = tiers.failures.pause_of(&self.item, now, is_lifted) {
            return self.fall_back(error, None);
        }
        let loaders = tiers.loaders.clone();
        loaders.submit(Job {
            share: self.item.share.clone(),
            interest: self.leader.interest().clone(),
            // Without a Redis there is no lease to wait for.
            blocks: matches!(load, Loader::OfThread(_)) || self.may_ask_redis(),
            work: Box::new(move |turn, permit| self.on_turn(load, turn, permit)),
        });
    }

    /// The load has its permit, if it is its turn, and may block then if it has said so.
    fn on_turn(mut self, load: Loader, turn: Turn, permit: &mut Option<Permit>) {
        match turn {
            Turn::Now => {}
            Turn::Refused => return self.failed(LoadError::Overloaded, None),
            // Its readers have stepped back: they have no right to wait in the queue.
            Turn::Left => return self.leader.end(Err(LoadError::Overloaded)),
        }
        let token = format!("{:016x}", random());
        match self.take_lease(&token) {
            LeaseOutcome::Load(stamp) => {
                let begun = self.begin_load(stamp, token);
                match load {
                    Loader::OfThread(load) => self.load(load, begun),
                    Loader::OfRunner => self.hand_over(begun, permit.take()),
                }
            }
            LeaseOutcome::Answer(answer) => self.leader.end(Ok(answer)),
            LeaseOutcome::LoadingElsewhere => self.wait(load),
            LeaseOutcome::Failed(error) => self.failed(error, None),
        }
    }

    fn take_lease(&mut self, token: &str) -> LeaseOutcome {
        if !self.uses_redis() {
            return LeaseOutcome::Load(self.tiers.mirror.stamp());
        }
        // Twice: what another load has filled meanwhile can be stale already. It is not the same
        // value a second time.
        for _ in 0..2 {
            let waited_for = match &self.elsewhere {
                Elsewhere::WaitedFor(other) => Some(other.token.as_str()),
                Elsewhere::Unknown | Elsewhere::Filled => None,
            };
            let (redis, key) = (&self.tiers.redis, &self.item.key);
            let lease = redis.lease(key, &self.targets, token, &self.seen, waited_for);
            self.hear(lease.is_ok());
            match lease {
                Ok(Lease::Won(stamp)) => return LeaseOutcome::Load(stamp),
                Ok(Lease::Taken(token, stamp)) => {
                    self.elsewhere = Elsewhere::WaitedFor(OtherLoad {
                        token,
                        own: self.tiers.mirror.dependency(stamp, &self.targets),
                        presumed_until: None,
                    });
                    return LeaseOutcome::LoadingElsewhere;
                }
                Ok(Lease::Failed(error)) => return LeaseOutcome::Failed(error),
                Ok(Lease::Newer(bytes)) => {
                    if matches!(self.elsewhere, Elsewhere::Unknown) {
                        self.elsewhere = Elsewhere::Filled;
                    }
                    if let Some(answer) = self.look_into(&bytes) {
                        return LeaseOutcome::Answer(answer);
                    }
                }
                Err(_) => break,
            }
        }
        LeaseOutcome::Load(self.tiers.mirror.stamp())
    }

    fn begin_load(&self, stamp: Stamp, token: String) -> Begun {
        self.leader.set_unverified(false);
        // From here on readers that come later are compared with the stamp of the load.
        let own = self.tiers.mirror.dependency(stamp, &self.targets);
        self.leader.stamp(own.clone());
        Begun { own, token }
    }

    /// Has a runner ask the source. The lookup and its permit wait for that.
    fn hand_over(self, begun: Begun, permit: Option<Permit>) {
        let flight = self.leader.flight().clone();
        flight.hand_over(move |ran| self.has_run(ran, begun, permit));
    }

    /// A runner has asked the source, or none was left. Does not block unless that says it may.
    fn has_run(self, ran: Option<Ran>, begun: Begun, mut permit: Option<Permit>) {
        let may_block = ran.as_ref().is_some_and(|ran| ran.may_block);
        let needs_thread = self.may_ask_redis() && !may_block;
        let end = move |permit: &mut Option<Permit>| match ran {
            Some(Ran { result, took, .. }) => match self.brought(|| result) {
                Ok((loaded, object)) => self.fill(loaded, object, false, begun, took),
                Err(error) => self.gave_nothing(error, &begun, took),
            },
            None => self.give_up(&begun, permit),
        };
        match permit.take_if(|_| needs_thread) {
            Some(permit) => permit.resume(end),
            None => end(&mut permit),
        }
    }

    /// Nobody is left who could ask the source: gives the lease back, for the next who comes.
    fn give_up(self, begun: &Begun, permit: &mut Option<Permit>) {
        if self.uses_redis() {
            // A lease that cannot be given back expires.
            let _ = self.tiers.redis.give_back(&self.item.key, &begun.token);
        }
        // First: the flight may begin again, and need one.
        drop(permit.take());
        self.leader.give_up();
    }

    /// Asks the source.
    fn load(self, load: Load, begun: Begun) {
        let revalidation = self.revalidation();
        // Kept until the load has ended: nothing else is at its address then.
        let shown = revalidation.as_ref().map(|shown| shown.value.clone());
        let began = Instant::now();
        let context = LoadContext {
            deadline: began + load.limit,
            revalidation,
        };
        let loaded = self.brought(|| (load.run)(context));
        let took = began.elapsed();
        match loaded {
            Ok((loaded, object)) => {
                let is_confirmed = shown.is_some_and(|shown| loaded.value.is_the_same(&shown));
                self.fill(loaded, object, is_confirmed, begun, took);
            }
            Err(error) => self.gave_nothing(error, &begun, took),
        }
    }

    /// What `load` brings, and what memory is to hold in place of its bytes, if that is an object.
    /// A panic is an error.
    fn brought(
        &self,
        load: impl FnOnce() -> Result<Loaded, LoadError>,
    ) -> Result<(Loaded, Option<Object>), LoadError> {
        let brought = catch_unwind(AssertUnwindSafe(|| {
            let loaded = load()?;
            let object = match (&self.hold, &loaded.value) {
                (Some(hold), Value::Present(bytes)) => {
                    Some(hold(bytes).map_err(LoadError::Failed)?)
                }
                _ => None,
            };
            Ok((loaded, object))
        }));
        brought.unwrap_or_else(|_| {
            log::error!("the load of {} panicked", self.item.key);
            Err(LoadError::panicked())
        })
    }

    /// The copy that the source may confirm.
    fn revalidation(&self) -> Option<Revalidation> {
        let copy = self.newest.as_ref()?;
        let fresh_until = copy.expiry.fresh_until;
        let facts = self.tiers.facts(copy, fresh_until, &self.item.policy, true);
        let validator = copy
            .validator()
            .filter(|_| facts.validity.is_confirmable())?;
        Some(Revalidation {
            value: copy.value.bytes().clone(),
            validator: validator.into(),
        })
    }

    /// The newest copy from before this load: one that the lookup has found, however old or
    /// invalid, or one that another load has brought into memory meanwhile.
    fn predecessor(&self) -> Option<Arc<Entry>> {
        let in_memory = self.tiers.memory.get(self.item.key.as_str());
        let copies = in_memory.into_iter().chain(self.newest.clone());
        copies.max_by_key(|copy| copy.loaded_at)
    }

    /// Counts the load, which has ended.
    fn count_load(&self, result: LoadResult, took: Duration) {
        self.counts().count_load(result, took);
    }

    fn counts(&self) -> &Counts {
        let tally = &self.item.tally;
        if self.is_part && !self.is_refresh {
            tally.part()
        } else {
            tally.own()
        }
    }

    /// The source brought a value, or confirmed the one that it was shown: fills Redis, then
    /// memory.
    fn fill(
        self,
        mut loaded: Loaded,
        object: Option<Object>,
        is_confirmed: bool,
        begun: Begun,
        took: Duration,
    ) {
        let (tiers, policy) = (&self.tiers, &self.item.policy);
        let (now, jitter) = (tiers.clock.now(), self.item.jitter);
        let (absent, lifetime) = (loaded.value.is_absent(), loaded.lifetime);
        let fresh_for = policy.fresh_for(absent, lifetime, jitter);
        let fresh_until = now + micros(fresh_for);
        let expiry = policy.expiry(absent, lifetime, jitter, fresh_until, now);
        let extras = Extras {
            lifetime,
            validator: loaded.take_validator(),
            ..Extras::default()
        };
        let Begun { own, token } = begun;
        let entry = Entry::new(loaded.value, own, now, micros(took), expiry, extras);
        let mut stored = false;
        if self.uses_redis() {
            let ttl = match lifetime {
                Lifetime::NoStore => Duration::ZERO,
                _ => fresh_for + entry.use_past_end(policy),
            };
            // The lease is given back also if there is nothing to keep: it is renewed until then.
            let bytes = if ttl.is_zero() {
                Vec::new()
            } else {
                envelope::encode(&entry, random(), fresh_for, &tiers.clock)
            };
            let (key, stamp) = (&self.item.key, entry.own.stamp);
            let done = tiers
                .redis
                .fill(key, Some(token.as_str()), stamp, &bytes, ttl);
            stored = done == Ok(Filled::Stored) && !bytes.is_empty();
        }
        tiers.failures.clear(&self.item.key);
        let result = if is_confirmed {
            LoadResult::Confirmed
        } else {
            LoadResult::of(&entry, self.predecessor().as_deref())
        };
        self.count_load(result, took);
        let entry = match object {
            Some(object) => entry.holding(object),
            None => entry,
        };
        let entry = tiers.keep(&self.item, entry);
        let mut answer = self.answer(entry, Outcome::Loaded);
        answer.trace.source = Some(took);
        answer.trace.stored = stored;
        self.log(Some(took), None);
        self.leader.end(Ok(answer));
    }

    /// The source brought nothing: gives the lease back.
    fn gave_nothing(mut self, error: LoadError, begun: &Begun, took: Duration) {
        self.count_load(LoadResult::Failed, took);
        if self.uses_redis() {
            // A lease that cannot be given back expires.
            let _ = self
                .tiers
                .redis
                .release(&self.item.key, &begun.token, &error);
        }
        // Trust has ended during the load, and Redis was not asked about the copy at hand yet.
        if self.stale.is_some() && self.evidence() == Evidence::NotAsked {
            self.heard = self.tiers.ask(&self.item.key, &self.targets);
        }
        self.failed(error, Some(took));
    }

    fn failed(self, error: LoadError, took: Option<Duration>) {
        self.item.tally.count_load_error();
        self.log(took, Some(&error));
        let tiers = &self.tiers;
        let (now, at) = (tiers.clock.now(), tiers.mirror.stamp());
        tiers.failures.note(&self.item, &error, now, at);
        self.fall_back(error, took);
    }

    /// Ends without a new value: with the stale copy, as far as policy allows.
    fn fall_back(self, error: LoadError, took: Option<Duration>) {
        let may_stand_in = |copy: &&Arc<Entry>| self.decide(copy).allows_use();
        let Some(stale) = self.stale.as_ref().filter(may_stand_in) else {
            if self.redis_took.is_some() && !self.is_refresh {
                self.counts().count_redis_miss();
            }
            return self.leader.end(Err(error));
        };
        let (entry, outcome) = self.tiers.back_off(&self.item, stale, &error);
        let mut answer = self.answer(entry, outcome);
        answer.trace.source = took;
        self.leader.end(Ok(answer));
    }

    /// Whether Redis keeps the value.
    fn uses_redis(&self) -> bool {
        !self.item.policy.redis.is_zero() && self.may_ask_redis()
    }

    /// Whether there is a Redis to ask, which blocks.
    fn may_ask_redis(&self) -> bool {
        self.tiers.redis.pool().is_used()
    }

    fn answer(&self, entry: Arc<Entry>, outcome: Outcome) -> Answer {
        Answer {
            entry,
            outcome,
            trace: self.trace(),
        }
    }

    fn trace(&self) -> Trace {
        Trace {
            redis: self.redis_took,
            ..Trace::default()
        }
    }

    /// One line for a load that a reader waits for, and for a refresh. A composite logs its parts.
    fn log(&self, took: Option<Duration>, error: Option<&LoadError>) {
        if self.is_part && !self.is_refresh {
            return;
        }
        let event = if self.is_refresh { "refresh" } else { "miss" };
        let all = self.began.elapsed().as_millis();
        let source_ms = took.map(|took| took.as_millis());
        let CacheItem {
            key, label, note, ..
        } = &self.item;
        let (source, resource) = (&**label, note.resource.as_deref());
        let (request_id, trace_id) = (note.request_id.as_deref(), note.trace_id.as_deref());
        match error {
            Some(error) => {
                // A wrong request is the client's: clients must not fill the log with warnings.
                let level = match error {
                    LoadError::Unfit { .. } => log::Level::Info,
                    _ => log::Level::Warn,
                };
                log::log!(
                    level, event, resource, key:%, duration_ms = all, source, source_ms, error:%,
                    request_id, trace_id;
                    "{event} {key} {all}ms {source}=failed ({error})"
                );
            }
            None => log::info!(
                event, resource, key:%, duration_ms = all, source, source_ms, request_id, trace_id;
                "{event} {key} {all}ms {source}={}ms", source_ms.unwrap_or_default()
            ),
        }
    }
}

/// A stale copy for readers of a flight that goes on. Whether it may be served is decided again
/// each time: a hard purge may have come meanwhile, or trust may be over.
struct StaleCopy {
    tiers: Arc<Tiers>,
    policy: Arc<Policy>,
    entry: Arc<Entry>,
    /// What the lookup has heard from Redis.
    heard: Evidence,
    trace: Trace,
}

impl StaleCopy {
    /// The copy, if the decision is at least as good as `least`.
    fn give(&self, least: Decision, why: Staleness) -> Option<Answer> {
        let now = self.tiers.clock.now();
        let evidence = self.tiers.evidence_after(self.heard, now);
        let decision = self.tiers.decide(&self.entry, evidence, &self.policy, now);
        (decision <= least).then(|| Answer {
            entry: self.entry.clone(),
            outcome: Outcome::Stale(why),
            trace: self.trace,
        })
    }
}
