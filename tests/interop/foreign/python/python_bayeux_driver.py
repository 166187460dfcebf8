"""Drives python-bayeux: commands come as JSON lines on stdin, answers and events go out as such on stdout."""

# Before anything else is imported: the library runs in greenlets, and its requests would block them all.
from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent.event import AsyncResult  # noqa: E402
from gevent.fileobject import FileObject  # noqa: E402
from python_bayeux import BayeuxClient  # noqa: E402


def say(line: dict[str, Any]) -> None:
    # One write, for greenlets switch between two.
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class Session(BayeuxClient):
    """Its calls queue a request and return nothing, so this watches the answers pass by."""

    def __init__(self, number: int, endpoint: str) -> None:
        self.number = number
        self.awaited: list[tuple[str, Any, AsyncResult]] = []
        super().__init__(endpoint)
        # Calls the callbacks from a greenlet of its own.
        self.go()

    def _send_message(self, payload: dict[str, Any], **kwargs: Any) -> Any:
        replies = super()._send_message(payload, **kwargs)
        # What is more in the list are messages.
        own = (reply for reply in replies if reply.get("id") == payload["id"] and "data" not in reply)
        reply = next(own, {"successful": False})
        if payload["channel"] == "/meta/handshake" and reply["successful"]:
            say({"event": "handshake", "client": self.number, "clientId": reply["clientId"]})
        key = (payload["channel"], payload.get("subscription", payload.get("data")))
        for awaited in [awaited for awaited in self.awaited if awaited[:2] == key][:1]:
            self.awaited.remove(awaited)
            awaited[2].set(reply)
        return replies

    def answer_to(self, channel: str, what: Any) -> AsyncResult:
        answer: AsyncResult = AsyncResult()
        self.awaited.append((channel, what, answer))
        return answer

    def listen(self, channel: str, subscription: int) -> None:
        def called(message: dict[str, Any]) -> None:
            said = {"subscription": subscription, "channel": message["channel"], "data": message["data"]}
            say({"event": "message", "client": self.number, **said})

        # The library takes the name of a method.
        setattr(self, f"called_{subscription}", called)
        self.subscribe(channel, f"called_{subscription}")

    def _exception_callback(self, failed_greenlet: Any) -> None:
        say({"event": "ended", "client": self.number, "error": repr(failed_greenlet.exception)})
        super()._exception_callback(failed_greenlet)


sessions: dict[int, Session] = {}


def obey(command: dict[str, Any]) -> dict[str, Any]:
    if command["do"] == "open":
        session = Session(command["client"], command["url"])
        sessions[command["client"]] = session
        # It has no other.
        say({"event": "transport", "client": session.number, "transport": "long-polling"})
        return {"clientId": session.client_id}
    session = sessions[command["client"]]
    if command["do"] == "disconnect":
        del sessions[command["client"]]
        session.shutdown()
        return {}
    channel = command["channel"]
    if command["do"] == "subscribe":
        answer = session.answer_to("/meta/subscribe", channel)
        session.listen(channel, command["subscription"])
    elif command["do"] == "unsubscribe":
        answer = session.answer_to("/meta/unsubscribe", channel)
        session.unsubscribe(channel)
    elif command["do"] == "publish":
        answer = session.answer_to(channel, command["data"])
        session.publish(channel, command["data"])
    else:
        raise ValueError(f"cannot {command['do']}")
    reply = answer.get()
    if not reply["successful"]:
        raise ValueError(str(reply))
    return {}


def answer(command: dict[str, Any]) -> None:
    try:
        say({"tag": command["tag"], "ok": True, **obey(command)})
    except Exception as error:
        say({"tag": command["tag"], "ok": False, "error": repr(error)})


say({"event": "ready"})
# Reading from stdin itself would block all greenlets.
for line in FileObject(sys.stdin.fileno(), "r", encoding="utf-8", close=False):
    gevent.spawn(answer, json.loads(line))
