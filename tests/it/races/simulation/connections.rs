//! How a client connects, with whatever can go wrong on the way: by polls, sockets and streams, and under a new session.

use weft::engine::Reach;
use weft::session::Outlet;

use super::outlet::Line;
use super::*;

impl Run {
    /// One poll to its answer; `None` when its connection breaks before.
    async fn ask(&self, client: &Client, id: &str, retry: bool) -> Option<Answer> {
        let hold = Duration::from_millis(self.random.borrow_mut().u64(0..20));
        let member = self.node();
        let mut poll = member.node.poll_with(&client.session(), id, hold, retry, client.word());
        if self.chance(8) {
            // The client gives up, or its connection breaks.
            let patience = Duration::from_millis(self.random.borrow_mut().u64(0..5));
            if let Ok(Some(answer)) = tokio::time::timeout(patience, member.call(&mut poll)).await {
                return answer.ok();
            }
            poll.abort();
            client.note(format!("cut {id}"));
            return None;
        }
        match member.call(&mut poll).await {
            Some(answer) => Some(answer.expect("no panic")),
            None => {
                // The client cannot know how far the node had come.
                client.undisturbed.set(false);
                poll.abort();
                None
            }
        }
    }

    /// One connect by polling, with whatever can go wrong on the way.
    pub(super) async fn poll(&self, client: &Client) {
        let mut id = client.id();
        let mut retry = false;
        // Three complete writes under one id confirm: more losses than these nobody can tell from a constant id.
        let mut unnoticed = 0;
        loop {
            let copied = !client.kind.says_that_it_failed() && self.chance(10);
            let (mut reply, copy) = if copied {
                client.undisturbed.set(false);
                let (reply, copy) = tokio::join!(self.ask(client, &id, retry), self.ask(client, &id, retry));
                (reply, copy)
            } else {
                (self.ask(client, &id, retry).await, None)
            };
            let name = |answer: &Option<Answer>| answer.as_ref().map_or("nothing", Answer::name);
            client.note(format!(
                "poll {id}: {}{}",
                name(&reply),
                if copied { format!(", copy {}", name(&copy)) } else { String::new() }
            ));
            // The client listens to one of the two only.
            if matches!(reply, None | Some(Answer::Hangup | Answer::Unavailable)) {
                reply = copy;
            }
            match reply {
                Some(Answer::Messages(numbers, receipt, told)) => {
                    assert_eq!(told.gap, None, "{}", client.history());
                    if self.chance(15) {
                        client.undisturbed.set(false);
                        // The reply is lost; the node notices, or does not.
                        client.note(format!("lost {numbers:?}"));
                        if self.chance(50) || unnoticed == 2 {
                            drop(receipt);
                        } else {
                            unnoticed += 1;
                            receipt.written();
                        }
                    } else {
                        receipt.written();
                        client.note(format!("received {numbers:?}"));
                        client.receive(&numbers, &told.positions, told.replayed);
                        client.acked.set(told.upto.get(PartitionId::default()));
                        return;
                    }
                }
                Some(Answer::Empty) => return,
                Some(Answer::Released | Answer::Unknown) => panic!("the session must live: {}", client.history()),
                Some(Answer::Hangup | Answer::Unavailable) | None => {}
            }
            if client.kind == Kind::Resume && self.chance(20) {
                // It turns to a stream, and comes back to the connect that was not answered.
                self.stream(client).await;
            }
            if client.kind.says_that_it_failed() {
                id = client.id();
                retry = true;
            }
        }
    }

    /// Attaches in another way than by poll; `None` when that fails.
    async fn attach(&self, member: &Member, client: &Client, link: Link<'_>) -> Option<Held> {
        match member.call(member.node.sessions.attach(&client.session(), link)).await {
            Some(Ok(AttachOutcome::Held(held))) => Some(held),
            Some(Ok(AttachOutcome::Unknown)) => panic!("the session must live: {}", client.history()),
            Some(Ok(AttachOutcome::Late | AttachOutcome::Closed) | Err(_)) | None => None,
        }
    }

    /// A socket for a while: takes, confirms some of it, and ends in one way or another.
    pub(super) async fn socket(&self, client: &Client) {
        let member = self.node();
        let id = client.id();
        let word = client.word();
        let link = Link::Socket { connect_id: Some(&id), retry: false, claim: word.as_ref().map(Word::claim) };
        let Some(held) = self.attach(&member, client, link).await else {
            client.undisturbed.set(false);
            return;
        };
        // Most sockets let the hub write; who acknowledges by number does not.
        let hub_writes = client.kind != Kind::Ack && self.chance(70);
        let line = hub_writes.then(|| Line::new(30, self.random.borrow_mut().u64(..)));
        let open = |held: &Held| {
            let outlet = line.clone().map(|line| line as Arc<dyn Outlet>);
            held.set_outlet(outlet);
        };
        open(&held);
        client.note(format!("socket {id}, the hub writes: {hub_writes}"));
        // What comes on one socket rises, but for replays, and for what an acknowledgement asks for again.
        let newest = Cell::new(Position::default());
        let rises = |positions: &[Position]| {
            for position in positions.iter().filter(|_| client.kind != Kind::Ack) {
                assert!(newest.replace(*position) < *position, "{}", client.history());
            }
        };
        for _ in 0..self.below(6) {
            let step = tokio::time::timeout(Duration::from_millis(20), member.call(held.next())).await;
            let covered = line.as_ref().map(|line| self.read_line(client, line, &held, rises));
            match step {
                Ok(Some(Step::Ready)) => {
                    // What is taken now must not be overtaken on its way out.
                    held.set_outlet(None);
                    let batch = held.take(200);
                    assert_eq!(batch.gap, None, "{}", client.history());
                    let (numbers, positions) = (numbers(&batch.deliveries), positions(&batch.deliveries));
                    client.note(format!("socket received {numbers:?}"));
                    if !batch.replayed {
                        rises(&positions);
                    }
                    client.receive(&numbers, &positions, batch.replayed);
                    open(&held);
                    if self.chance(60) {
                        // The pong arrives, or the next connect with the number of this reply.
                        client.acked.set(held.sent().cursor.get(PartitionId::default()));
                        held.confirm(&held.sent());
                    } else if client.kind == Kind::Ack && self.chance(30) {
                        // The reply was lost on the way, and the client says so on the same socket.
                        client.undisturbed.set(false);
                        held.rewind(&Cursor::single(client.acked.get()));
                    }
                }
                Ok(Some(Step::Refresh)) => {
                    // An error leaves it due.
                    let _ = member.call(member.node.sessions.refresh(held.attachment())).await;
                }
                Ok(Some(Step::Ended(_)) | None) => break,
                Err(_) => {}
            }
            if let Some(covered) = covered.filter(|_| self.chance(60)) {
                // The pong to a ping behind what was written comes late.
                held.confirm(&covered);
            }
        }
        client.note(format!("socket {id} ends {:?}", held.ended()));
        held.set_outlet(None);
        if let Some(line) = &line {
            if self.chance(70) {
                self.read_line(client, line, &held, rises);
            } else {
                // What was written last does not arrive.
                client.undisturbed.set(false);
                client.note(format!("socket {id} breaks"));
                return;
            }
        }
        if self.chance(50) && !member.crashed.is_cancelled() {
            // In order, but not all that was sent may have been confirmed.
            client.undisturbed.set(client.undisturbed.get() && held.ended().is_none());
            if client.kind == Kind::Ack {
                client.undisturbed.set(false);
            } else {
                held.confirm(&held.sent());
            }
            if !matches!(member.call(held.detach(Progress::Confirmed)).await, Some(Ok(()))) {
                client.undisturbed.set(false);
            }
        } else {
            client.undisturbed.set(false);
            drop(held);
        }
    }

    /// The client reads what the hub has written; gives what a ping behind it covers.
    fn read_line(&self, client: &Client, line: &Line, held: &Held, check: impl Fn(&[Position])) -> Reach {
        let (written, covered) = line.drain(|| held.sent());
        let (numbers, positions): (Vec<_>, Vec<_>) = written.into_iter().unzip();
        if !numbers.is_empty() {
            client.note(format!("socket received {numbers:?} from the hub"));
            check(&positions);
            client.receive(&numbers, &positions, false);
        }
        covered
    }

    /// An event stream for a while; the browser may miss what was written last, and says what it has when it comes again.
    pub(super) async fn stream(&self, client: &Client) {
        client.undisturbed.set(false);
        let member = self.node();
        let last = client.last_event.borrow().clone().filter(|_| self.chance(70));
        let Some(held) = self.attach(&member, client, Link::Stream { last_event: last.as_ref() }).await else { return };
        client.note(format!("stream after {last:?}"));
        let mut cursor = held.sent().cursor;
        *client.last_event.borrow_mut() = Some(LastEvent { epoch: held.epoch(), cursor: cursor.clone() });
        for _ in 0..self.below(6) {
            match tokio::time::timeout(Duration::from_millis(20), member.call(held.next())).await {
                Ok(Some(Step::Ready)) => {
                    let written = held.sent();
                    let batch = held.take(200);
                    assert_eq!(batch.gap, None, "{}", client.history());
                    let deliveries = batch.deliveries;
                    let arrive = if self.chance(80) { deliveries.len() } else { self.below(deliveries.len() + 1) };
                    for delivery in deliveries[..arrive].iter().filter(|_| !batch.replayed) {
                        cursor.raise(delivery.partition, delivery.position);
                    }
                    let numbers = numbers(&deliveries[..arrive]);
                    client.note(format!("stream received {numbers:?}"));
                    client.receive(&numbers, &positions(&deliveries[..arrive]), batch.replayed);
                    *client.last_event.borrow_mut() = Some(LastEvent { epoch: held.epoch(), cursor: cursor.clone() });
                    if arrive < deliveries.len() {
                        break;
                    }
                    held.flushed(&written);
                }
                Ok(Some(Step::Refresh)) => {
                    let _ = member.call(member.node.sessions.refresh(held.attachment())).await;
                }
                Ok(Some(Step::Ended(_)) | None) => break,
                Err(_) => {}
            }
        }
        client.note(format!("stream ends {:?}", held.ended()));
        if self.chance(50) && held.ended().is_none() {
            let _ = member.call(held.detach(Progress::Flushed)).await;
        }
    }

    /// The session ends, and a new one goes on where the client is, with the same subscriptions.
    pub(super) async fn start_over(&self, client: &Client) {
        let ended = client.session();
        loop {
            let member = self.node();
            if let Some(Ok(_)) = member.call(member.node.store.end(&ended, Ended::Expired)).await {
                break;
            }
        }
        let (at, patterns): (_, Vec<_>) = (
            client.position.borrow().clone(),
            client
                .started
                .borrow()
                .iter()
                .map(|(name, since)| Subscription {
                    pattern: Pattern::parse(name).expect("valid"),
                    since: *since,
                    replay: client.replaying.borrow().as_ref().filter(|_| *name == KEPT).map(|one| one.upto),
                })
                .collect(),
        );
        loop {
            let (member, session) = (self.node(), SessionId::random());
            let creation = Creation {
                traits: client.kind.traits(),
                resumed: Some((&at, &patterns)),
                ..Creation::new(&session, LIFETIME, 1000)
            };
            if let Some(Ok(Create::Created(start))) = member.call(member.node.store.create(creation)).await {
                assert_eq!(start, at, "{}", client.history());
                client.note(format!("goes on at {start:?} with {patterns:?}"));
                *client.session.borrow_mut() = session;
                *client.last_event.borrow_mut() = None;
                return;
            }
        }
    }
}
