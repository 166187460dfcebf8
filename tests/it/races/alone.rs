//! Sessions that are alone on their logs: on Redis the publisher tells only the node that holds them, and that node listens
//! to nothing, until there is company. On the memory engine, which always listens, the same must come out.

use super::*;

const SOCKET: Link<'static> = Link::Socket { connect_id: None, retry: false, claim: None };

/// Neither a poll nor a socket asks Redis for anything but its attach.
pub async fn who_is_alone_listens_to_nothing(world: World) {
    let (here, there) = world.two_nodes().await;
    let (poller, held) = (here.lone_session(&["/a", "/b/*"]).await, here.lone_session(&["/c"]).await);
    let gates = [here.gate(Point::Before("listen")), here.gate(Point::Before("read"))];
    let poll = here.poll(&poller, "1");
    let socket = here.attach(&held, SOCKET).await;
    settle(&here, &socket).await;
    world.quiesce().await;
    there.publish("/b/x", 1).await;
    there.publish("/c", 2).await;
    assert_eq!(answer(poll).await.delivered(), [1]);
    assert_eq!(take(&here, &socket, 1).await, [2]);
    // What waits comes with the next attach.
    there.publish("/a", 3).await;
    assert_eq!(answer(here.poll(&poller, "2")).await.delivered(), [3]);
    let poll = here.poll(&poller, "3");
    world.quiesce().await;
    there.publish("/a", 4).await;
    assert_eq!(answer(poll).await.delivered(), [4]);
    gates.into_iter().for_each(|gate| gate.open());
}

/// The poll of a lone session is on another node each time.
pub async fn the_only_subscriber_is_not_read_for_on_many_nodes(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.lone_session(&["/a"]).await;
    let gates = [&here, &there].map(|node| [node.gate(Point::Before("listen")), node.gate(Point::Before("read"))]);
    for number in 0..6 {
        let node = if number % 2 == 0 { &here } else { &there };
        let poll = node.poll(&session, &number.to_string());
        world.quiesce().await;
        here.publish("/a", number).await;
        assert_eq!(answer(poll).await.delivered(), [number]);
    }
    gates.into_iter().flatten().for_each(|gate| gate.open());
}

pub async fn message_stored_during_a_lone_attach_wakes_poll(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.lone_session(&["/a", "/b"]).await;
    polls::stored_around_an_attach(&world, &here, &there, &session).await;
}

/// The message is there before the reply of the attach, and what the node knew of its log is gone by then.
pub async fn what_came_too_early_is_not_forgotten(world: World) {
    for (older, channel) in [(false, "/a"), (true, "/b")] {
        let node = world.node_lingering(Duration::ZERO).await;
        let session = node.lone_session(&[channel]).await;
        let socket = if older { Some(node.attach(&session, SOCKET).await) } else { None };
        if let Some(socket) = &socket {
            settle(&node, socket).await;
        }
        let gate = node.gate(Point::After("attach"));
        let poll = node.poll(&session, "1");
        gate.arrived().await;
        node.publish(channel, 1).await;
        world.quiesce().await;
        drop(socket);
        node.hub.tidy().await;
        world.quiesce().await;
        gate.open();
        assert_eq!(answer(poll).await.delivered(), [1], "held before: {older}");
    }
}

/// Another subscriber comes while the reply of the attach, which says that there is none, is on its way.
pub async fn company_arrives_during_the_attach(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.lone_session(&["/a", "/b"]).await;
    let gate = here.gate(Point::After("attach"));
    let poll = here.poll(&session, "1");
    gate.arrived().await;
    let company = there.lone_session(&["/b"]).await;
    there.publish("/b", 1).await;
    world.quiesce().await;
    gate.open();
    assert_eq!(answer(poll).await.delivered(), [1]);
    assert_eq!(there.poll_now(&company, "1").await, [1]);
}

pub async fn company_arrives_while_held(world: World) {
    let (here, there) = world.two_nodes().await;
    let (poller, held) = (here.lone_session(&["/a"]).await, here.lone_session(&["/b"]).await);
    let poll = here.poll(&poller, "1");
    let socket = here.attach(&held, SOCKET).await;
    settle(&here, &socket).await;
    world.quiesce().await;
    for point in [Point::Before("listen"), Point::Before("read")] {
        // Nothing of what is stored before the node listens is told to it.
        let gate = here.gate(point);
        let company = there.lone_session(&["/b"]).await;
        let number = if point == Point::Before("listen") { 1 } else { 3 };
        let publish = async {
            there.publish("/b", number).await;
            world.quiesce().await;
            gate.open();
            there.publish("/b", number + 1).await;
        };
        let (taken, ()) = tokio::join!(take(&here, &socket, 2), publish);
        assert_eq!(taken, [number, number + 1]);
        there.store.end(&company, Ended::Disconnected).await.expect("an outcome");
    }
    let _company = there.lone_session(&["/a"]).await;
    there.publish("/a", 5).await;
    assert_eq!(answer(poll).await.delivered(), [5]);
}

/// Who is left is told alone again, on the same connection: in order, and nothing twice.
pub async fn company_leaves_again(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.lone_session(&["/a"]).await;
    let socket = here.attach(&session, SOCKET).await;
    settle(&here, &socket).await;
    for round in 0..5 {
        there.publish("/a", 4 * round).await;
        let company = there.lone_session(&["/a"]).await;
        there.publish("/a", 4 * round + 1).await;
        world.quiesce().await;
        if round % 2 == 0 {
            settle(&here, &socket).await;
        }
        there.publish("/a", 4 * round + 2).await;
        there.store.end(&company, Ended::Disconnected).await.expect("an outcome");
        there.publish("/a", 4 * round + 3).await;
        assert_eq!(take(&here, &socket, 4).await, (4 * round..4 * round + 4).collect::<Vec<_>>());
    }
}

/// A stranger subscribes and leaves, again and again: the node listens since the first time, and is not held up.
pub async fn company_that_comes_and_goes_holds_nobody_up(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.lone_session(&["/a"]).await;
    let socket = here.attach(&session, SOCKET).await;
    settle(&here, &socket).await;
    let visit = async || {
        let stranger = there.lone_session(&["/a"]).await;
        there.store.end(&stranger, Ended::Disconnected).await.expect("an outcome");
    };
    world.quiesce().await;
    let before = here.gates.progress().1;
    let gate = here.gate(Point::Before("read"));
    visit().await;
    let first_read = async {
        gate.arrived().await;
        // It is not begun anew by those who come while it is under way.
        for _ in 0..10 {
            visit().await;
        }
        world.quiesce().await;
        gate.open();
    };
    there.publish("/a", 1).await;
    let (taken, ()) = tokio::join!(take(&here, &socket, 1), first_read);
    assert_eq!(taken, [1]);
    for number in 2..5 {
        visit().await;
        there.publish("/a", number).await;
        world.quiesce().await;
        assert_eq!(take(&here, &socket, 1).await, [number]);
    }
    assert_eq!(here.gates.progress().1 - before, 2, "it listens and reads, once");
}

/// What a socket has confirmed is written when it goes, although somebody has just come.
pub async fn company_arrives_as_a_socket_leaves(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.lone_session(&["/a"]).await;
    let socket = here.attach(&session, SOCKET).await;
    settle(&here, &socket).await;
    here.publish("/a", 1).await;
    assert_eq!(take(&here, &socket, 1).await, [1]);
    socket.confirm(&socket.sent());
    let _company = there.lone_session(&["/a"]).await;
    socket.detach(Progress::Confirmed).await.expect("written");
    assert!(there.poll_now(&session, "1").await.is_empty(), "nothing comes twice");
}

pub async fn the_feed_breaks_around_a_lone_attach(world: World) {
    let points = [None, Some(Point::Before("attach")), Some(Point::After("attach"))];
    for (point, channel) in points.into_iter().zip(["/a", "/b", "/c"]) {
        let (here, there) = world.two_nodes().await;
        let session = here.lone_session(&[channel]).await;
        let gate = point.map(|point| here.gate(point));
        let poll = here.poll(&session, "1");
        match &gate {
            Some(gate) => gate.arrived().await,
            None => world.quiesce().await,
        }
        here.break_feed().await;
        there.publish(channel, 1).await;
        here.restore_feed().await;
        world.quiesce().await;
        if let Some(gate) = gate {
            gate.open();
        }
        assert_eq!(answer(poll).await.delivered(), [1], "{point:?}");
    }
}

/// Redis lost the subscribers of a log, and only one is back: its node is told alone. The other one's is told to read as soon
/// as that one is back too, without another message.
pub async fn what_redis_forgot_of_a_subscriber_is_read_again(world: World) {
    let SharedEngine::Redis(redis) = &world.engine else { return };
    let (here, there) = world.two_nodes().await;
    let (back, passed_over) = (here.lone_session(&["/a"]).await, here.lone_session(&["/a"]).await);
    let waiting = here.poll(&passed_over, "1");
    world.quiesce().await;
    redis.ask::<()>(&["DEL", "{weft:0}:subscribers:/a"]).await;
    world.advance(Duration::from_secs(140)).await;
    let poll = there.poll(&back, "1");
    world.quiesce().await;
    here.publish("/a", 1).await;
    assert_eq!(answer(poll).await.delivered(), [1]);
    let poll = there.poll(&back, "2");
    world.quiesce().await;
    assert!(!waiting.is_finished(), "it is not told");
    here.store.touch(&passed_over, None).await.expect("alive");
    assert_eq!(answer(waiting).await.delivered(), [1]);
    here.publish("/a", 2).await;
    assert_eq!(answer(poll).await.delivered(), [2]);
}
