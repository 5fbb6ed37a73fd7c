//! What a scrape shows: every metric, its name and what it tells. `docs/metrics.md` has the same
//! list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actix_web::web;

use crate::api::edge::Places;
use crate::api::state::{AppState, LiveResources};
use crate::api::traffic::Traffic;
use crate::auth::WrongKeys;
use crate::quantity::format_duration;
use crate::resource::Sources;
use larder_cache::stats::Snapshot;
use larder_cache::{
    AuditCounts, Cache, CacheMetrics, EvictionCause, LoadResult, LookupEnd, Staleness, Tally,
    Totals,
};

use super::exposition::{Family, Labels};
use super::process::Process;

/// The upper bounds of the buckets of reads, from 50 us to 16 s.
const OF_READS: std::ops::Range<usize> = 0..19;
/// Of loads, from 1 ms to 131 s.
const OF_LOADS: std::ops::Range<usize> = 4..22;
/// Of commands to Redis, which end within its timeout, from 50 us to a second.
const OF_COMMANDS: std::ops::Range<usize> = 0..15;

/// The parts of the server that count. Cheap to clone.
#[derive(Clone)]
pub(in crate::api) struct Metrics {
    cache: Cache,
    resources: web::Data<LiveResources>,
    traffic: web::Data<Traffic>,
    wrong_keys: Arc<WrongKeys>,
    places: web::Data<Places>,
    sources: Sources,
}

impl Metrics {
    pub(in crate::api) fn new(
        state: &AppState,
        places: &web::Data<Places>,
        sources: &Sources,
    ) -> Metrics {
        Metrics {
            cache: state.cache.clone(),
            resources: state.resources.clone(),
            traffic: state.traffic.clone(),
            wrong_keys: state.access.wrong_keys.clone(),
            places: places.clone(),
            sources: sources.clone(),
        }
    }

    /// Every metric with its series, as it is now. Blocks: reads files of the kernel's, and the
    /// memory tier tidies up.
    pub(super) fn families(&self) -> Vec<Family> {
        let (counted, cache) = (self.counted(), self.cache.metrics());
        let mut families = vec![build_info()];
        families.extend(self.requests(&counted));
        families.extend(stale(&counted));
        families.push(self.composites());
        families.extend(self.loads(&counted, &cache));
        families.extend(tiers(&cache));
        families.extend(coherence(&cache));
        families.extend(audits(&self.cache.audits()));
        families.extend(self.upstreams());
        families.extend(self.callers());
        families.extend(Process::read().map(process).into_iter().flatten());
        families
    }
}

fn label(name: &'static str, value: impl Into<String>) -> Labels {
    vec![(name, value.into())]
}

fn build_info() -> Family {
    let labels = label("version", env!("CARGO_PKG_VERSION"));
    Family::gauge("larder_build_info", "Always 1; the version is a label.").with(labels, 1)
}

fn tiers(cache: &CacheMetrics) -> Vec<Family> {
    let none = Vec::new;
    let memory = &cache.memory;
    let evictions = Family::counter(
        "larder_memory_evictions",
        "Entries that left memory, by the cause.",
    );
    let evictions = EvictionCause::ALL
        .into_iter()
        .fold(evictions, |family, cause| {
            family.with(label("cause", cause.word()), memory.evicted(cause))
        });
    let mut durations = Family::durations(
        "larder_redis_duration",
        "How long commands to Redis took, the failed ones included.",
    );
    let mut errors = Family::counter("larder_redis_errors", "Commands to Redis that failed.");
    for one in &cache.redis {
        let labels = || label("command", one.command.word());
        let bounds = &Snapshot::BOUNDS[OF_COMMANDS];
        durations = durations.with_durations(labels(), &one.durations, bounds);
        errors = errors.with(labels(), one.errors);
    }
    vec![
        Family::gauge("larder_memory_entries", "Entries in memory.").with(none(), memory.entries),
        Family::gauge("larder_memory", "The weight of the entries in memory.")
            .in_bytes()
            .with(none(), memory.bytes),
        Family::gauge(
            "larder_memory_limit",
            "The weight that entries in memory may have.",
        )
        .in_bytes()
        .with(none(), memory.limit_bytes),
        evictions,
        Family::gauge("larder_redis_up", "1 if Redis can be used, otherwise 0.")
            .with(none(), cache.redis_up.into()),
        durations,
        errors,
    ]
}

fn coherence(cache: &CacheMetrics) -> Vec<Family> {
    let none = Vec::new;
    let bus = &cache.bus;
    let invalidations = Family::counter(
        "larder_invalidations",
        "Invalidated targets, by the purge and by where they came from.",
    );
    let each = cache.invalidations.iter();
    let invalidations = each.fold(invalidations, |family, one| {
        let (kind, origin) = (one.purge.word().to_owned(), one.origin.word().to_owned());
        family.with(vec![("kind", kind), ("origin", origin)], one.targets)
    });
    let echo = Family::gauge(
        "larder_bus_echo_age",
        "The age of the last echo from Redis; trust ends at max_staleness.",
    )
    .in_seconds();
    vec![
        invalidations,
        Family::gauge(
            "larder_bus_trusted",
            "1 if memory may be served, otherwise 0.",
        )
        .with(none(), bus.trusted.into()),
        match bus.echo_age {
            Some(age) => echo.with_real(none(), age.as_secs_f64()),
            None => echo,
        },
        Family::counter(
            "larder_bus_gaps_repaired",
            "How often messages were missing and were fetched again.",
        )
        .with(none(), bus.gaps_repaired),
        Family::gauge(
            "larder_pending_names",
            "Targets whose invalidation Redis has not taken yet.",
        )
        .with(none(), bus.pending as u64),
    ]
}

fn audits(counts: &AuditCounts) -> Vec<Family> {
    let found = [
        ("same", counts.same),
        ("newer", counts.newer),
        ("illegal", counts.illegal),
        ("unknown", counts.unknown),
    ];
    let audits = Family::counter(
        "larder_audits",
        "Memory hits that were compared with the record in Redis, by what it said.",
    );
    vec![
        found.into_iter().fold(audits, |family, (result, count)| {
            family.with(label("result", result), count)
        }),
        Family::counter(
            "larder_audits_skipped",
            "Memory hits that were chosen and not compared: too many waited, or the queue was in use.",
        )
        .with(Vec::new(), counts.skipped),
        Family::gauge(
            "larder_audits_waiting",
            "Memory hits that wait to be compared.",
        )
        .with(Vec::new(), counts.waiting),
    ]
}

fn process(process: Process) -> Vec<Family> {
    let none = Vec::new;
    let most = Family::gauge("process_max_fds", "The limit of open file descriptors.");
    vec![
        Family::gauge("process_resident_memory", "Resident memory.")
            .in_bytes()
            .with(none(), process.resident_memory),
        Family::gauge("process_virtual_memory", "Virtual memory.")
            .in_bytes()
            .with(none(), process.virtual_memory),
        Family::counter("process_cpu", "CPU time in user and system mode.")
            .in_seconds()
            .with_real(none(), process.cpu),
        Family::gauge("process_open_fds", "Open file descriptors.").with(none(), process.open_fds),
        match process.max_fds {
            Some(limit) => most.with(none(), limit),
            None => most,
        },
        Family::gauge(
            "process_start_time",
            "When the process started, since 1970.",
        )
        .in_seconds()
        .with_real(none(), process.started),
    ]
}

/// The counters of a resource, or of a part that is not a resource.
struct Counted {
    name: String,
    /// Of readers.
    own: Totals,
    /// As a part of another value.
    part: Totals,
    load_durations: Snapshot,
    /// Whether it is declared, and readers can ask for it.
    is_read: bool,
    /// Whether it is declared as a part of another value.
    is_part: bool,
}

fn stale(counted: &[Counted]) -> [Family; 2] {
    let mut readers = Family::counter("larder_stale_served", "Stale answers, by the reason.");
    let mut parts = Family::counter(
        "larder_part_stale_served",
        "Stale copies as a part of another value, by the reason.",
    );
    for one in counted {
        let add = |mut family: Family, totals: &Totals| {
            for why in Staleness::ALL {
                let reason = ("reason", why.word().to_owned());
                let labels = vec![("resource", one.name.clone()), reason];
                family = family.with(labels, totals.stale_by(why));
            }
            family
        };
        if one.is_read || one.own.stale_served > 0 {
            readers = add(readers, &one.own);
        }
        if one.is_part || one.part.stale_served > 0 {
            parts = add(parts, &one.part);
        }
    }
    [readers, parts]
}

impl Metrics {
    fn counted(&self) -> Vec<Counted> {
        let resources = self.resources.load();
        let all = || resources.all().iter();
        let readable: BTreeSet<&str> = all()
            .filter(|resource| resource.is_read() && resource.settings().path.is_some())
            .map(|resource| resource.name())
            .collect();
        let parts: BTreeSet<String> = all().flat_map(|resource| resource.parts()).collect();
        let counted = |(name, tally): (String, &Arc<Tally>)| Counted {
            own: tally.totals(),
            part: tally.part_totals(),
            load_durations: tally.load_durations(),
            is_read: readable.contains(name.as_str()),
            is_part: parts.contains(&name),
            name,
        };
        resources.tallies().map(counted).collect()
    }

    fn requests(&self, counted: &[Counted]) -> Vec<Family> {
        let mut requests = Family::counter("larder_requests", "Admitted reads, by how they ended.");
        let mut lookups = Family::counter(
            "larder_part_lookups",
            "Look-ups as a part of another value, by how they ended.",
        );
        for one in counted {
            let by_end = |family: Family, totals: &Totals| {
                LookupEnd::ALL.into_iter().fold(family, |family, end| {
                    let outcome = ("outcome", end.word().to_owned());
                    let labels = vec![("resource", one.name.clone()), outcome];
                    family.with(labels, totals.ended(end))
                })
            };
            let any = |totals: &Totals| totals.hits + totals.misses > 0;
            if one.is_read || any(&one.own) {
                requests = by_end(requests, &one.own);
            }
            if one.is_part || any(&one.part) {
                lookups = by_end(lookups, &one.part);
            }
        }
        let durations = Family::durations(
            "larder_request_duration",
            "How long admitted reads took, from the look at their path to the finished answer.",
        );
        let durations = self
            .traffic
            .durations()
            .fold(durations, |family, (end, snapshot)| {
                let labels = label("outcome", end.word());
                family.with_durations(labels, &snapshot, &Snapshot::BOUNDS[OF_READS])
            });
        let responses = Family::counter("larder_responses", "Responses, by their status.");
        let responses = self
            .traffic
            .responses()
            .fold(responses, |family, (status, count)| match status {
                Some(status) => family.with(label("status", status.to_string()), count),
                None if count > 0 => family.with(label("status", "other"), count),
                None => family,
            });
        vec![requests, lookups, durations, responses]
    }

    /// Of how many parts each composite is made.
    fn composites(&self) -> Family {
        let parts = Family::gauge("larder_resource_parts", "The parts of a composite.");
        let resources = self.resources.load();
        let counts = resources.all().iter();
        let counts = counts.map(|resource| (resource.name(), resource.parts().len()));
        let composites = counts.filter(|(_, count)| *count > 0);
        composites.fold(parts, |family, (name, count)| {
            family.with(label("resource", name), count as u64)
        })
    }

    fn loads(&self, counted: &[Counted], cache: &CacheMetrics) -> Vec<Family> {
        let mut loads = Family::counter("larder_loads", "Loads that ended, by what they brought.");
        let mut durations = Family::durations("larder_load_duration", "How long loads took.");
        let has_loads =
            |one: &&Counted| one.is_read || one.is_part || one.load_durations.count() > 0;
        for one in counted.iter().filter(has_loads) {
            let labels = |name: &'static str, word: &str| {
                vec![("resource", one.name.clone()), (name, word.to_owned())]
            };
            for result in LoadResult::ALL {
                let count = one.own.loads_by(result) + one.part.loads_by(result);
                loads = loads.with(labels("result", result.word()), count);
            }
            let resource = label("resource", one.name.as_str());
            let bounds = &Snapshot::BOUNDS[OF_LOADS];
            durations = durations.with_durations(resource, &one.load_durations, bounds);
        }
        let shares = self.cache.shares();
        let mut refused = Family::counter(
            "larder_loads_refused",
            "Loads that were not begun because the queue was full.",
        );
        let mut left = Family::counter(
            "larder_loads_left",
            "Loads that left the queue because nobody waited for them any more.",
        );
        for share in shares {
            let labels = || label("share", &*share.name);
            refused = refused.with(labels(), share.refused);
            left = left.with(labels(), share.left);
        }
        let gauge = |name, help, count| Family::gauge(name, help).with(Vec::new(), count);
        vec![
            loads,
            durations,
            gauge(
                "larder_loads_running",
                "Loads that run.",
                cache.loads_running,
            ),
            gauge(
                "larder_loads_waiting",
                "Loads that wait for a permit.",
                cache.loads_waiting,
            ),
            refused,
            left,
        ]
    }

    fn upstreams(&self) -> Vec<Family> {
        // A resource with a source of its own may be called as an upstream is.
        let mut calls: BTreeMap<(String, &str), u64> = BTreeMap::new();
        let mut left: BTreeMap<(String, String), u64> = BTreeMap::new();
        for quota in self.sources.quotas() {
            for (result, count) in quota.calls().by_result() {
                *calls
                    .entry((quota.upstream().to_owned(), result))
                    .or_default() += count;
            }
            for (rate, places) in quota.left() {
                let window = (quota.upstream().to_owned(), format_duration(rate.per));
                let least = left.entry(window).or_insert(places);
                *least = places.min(*least);
            }
        }
        let upstream = |name| ("upstream", name);
        let made = Family::counter(
            "larder_upstream_calls",
            "Calls to upstreams, by how they ended.",
        );
        let made = calls
            .into_iter()
            .fold(made, |family, ((name, result), count)| {
                family.with(vec![upstream(name), ("result", result.to_owned())], count)
            });
        let remaining = Family::gauge(
            "larder_upstream_quota_remaining",
            "Calls that the quota of an upstream has left in each window, for all replicas.",
        );
        let remaining = left
            .into_iter()
            .fold(remaining, |family, ((name, window), places)| {
                family.with(vec![upstream(name), ("window", window)], places)
            });
        vec![made, remaining]
    }

    fn callers(&self) -> Vec<Family> {
        let none = Vec::new;
        let places = self.places.totals();
        let (unknown, slowed) = self.wrong_keys.totals();
        vec![
            Family::gauge(
                "larder_connections_open",
                "Client connections that are open.",
            )
            .with(none(), places.open as u64),
            Family::gauge(
                "larder_connections_limit",
                "Client connections that may be open.",
            )
            .with(none(), places.most as u64),
            Family::counter(
                "larder_connections_refused",
                "New connections that were closed at once, because no place was free.",
            )
            .with(none(), places.refused),
            Family::counter(
                "larder_connections_displaced",
                "Idle or stuck connections that made room for a new one.",
            )
            .with(none(), places.displaced),
            Family::counter(
                "larder_connections_timed_out",
                "Connections that were closed because their client was too slow.",
            )
            .with(none(), places.timed_out),
            Family::counter("larder_unknown_keys", "Requests with an unknown API key.")
                .with(none(), unknown),
            Family::counter(
                "larder_unknown_keys_slowed",
                "Requests with an unknown API key that got 429.",
            )
            .with(none(), slowed),
        ]
    }
}
