//! One run per cache key: who comes second waits for the first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use assay_repos::Digest;
use assay_rewards::GradeRecord;
use tokio::sync::watch;

type Landed = Option<Arc<GradeRecord>>;

/// The runs in progress that others may share.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    flying: Mutex<HashMap<Digest, watch::Receiver<Landed>>>,
}

/// Somebody's place in a flight.
#[derive(Debug)]
pub(crate) enum Seat {
    /// Nobody else runs it.
    Pilot(Pilot),
    /// Somebody does.
    Passenger(Passenger),
}

/// Who runs it. Until dropped, others wait.
#[derive(Debug)]
pub(crate) struct Pilot {
    flights: Arc<Flights>,
    key: Digest,
    landed: watch::Sender<Landed>,
}

/// Who waits for a run.
#[derive(Debug)]
pub(crate) struct Passenger(watch::Receiver<Landed>);

impl Flights {
    pub(crate) fn board(self: &Arc<Self>, key: &Digest) -> Seat {
        let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flying.get(key) {
            return Seat::Passenger(Passenger(flight.clone()));
        }
        let (landed, flight) = watch::channel(None);
        flying.insert(key.clone(), flight);
        Seat::Pilot(Pilot { flights: Arc::clone(self), key: key.clone(), landed })
    }
}

impl Pilot {
    /// Shares the record with all who wait. Keep the pilot until the record is in the cache, so
    /// that who comes now finds one or the other.
    pub(crate) fn land(&self, record: Arc<GradeRecord>) {
        self.landed.send_replace(Some(record));
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        let mut flying = self.flights.flying.lock().unwrap_or_else(PoisonError::into_inner);
        flying.remove(&self.key);
    }
}

impl Passenger {
    /// Waits for the record; `None` when the pilot gave up, so that somebody else has to.
    pub(crate) async fn record(mut self) -> Landed {
        self.0.wait_for(Option::is_some).await.ok().and_then(|landed| landed.clone())
    }
}
