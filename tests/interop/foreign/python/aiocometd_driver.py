"""Drives aiocometd: commands come as JSON lines on stdin, answers and events go out as such on stdout."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from aiocometd import Client, ConnectionType, Extension


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


class Watch(Extension):
    """Tells of handshakes, of which the client says nothing."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.client_id: str | None = None

    async def outgoing(self, payload: Any, headers: Any) -> None:
        pass

    async def incoming(self, payload: Any, headers: Any = None) -> None:
        for message in payload:
            if message["channel"] == "/meta/handshake" and message["successful"]:
                self.client_id = message["clientId"]
                say({"event": "handshake", "client": self.number, "clientId": self.client_id})


class Session:
    def __init__(self, command: dict[str, Any]) -> None:
        self.number = command["client"]
        self.watch = Watch(self.number)
        self.client = Client(command["url"], ConnectionType(command["transport"]), extensions=[self.watch])

    async def open(self) -> dict[str, Any]:
        await self.client.open()
        self.listening = asyncio.create_task(self.listen())
        say({"event": "transport", "client": self.number, "transport": self.client.connection_type.value})
        return {"clientId": self.watch.client_id}

    async def listen(self) -> None:
        try:
            async for message in self.client:
                said = {"channel": message["channel"], "data": message["data"]}
                say({"event": "message", "client": self.number, **said})
        except Exception as error:
            say({"event": "ended", "client": self.number, "error": repr(error)})

    async def close(self) -> None:
        await self.client.close()
        # It may wait for a message that never comes.
        self.listening.cancel()


sessions: dict[int, Session] = {}


async def obey(command: dict[str, Any]) -> dict[str, Any]:
    if command["do"] == "open":
        sessions[command["client"]] = session = Session(command)
        return await session.open()
    session = sessions[command["client"]]
    if command["do"] == "subscribe":
        await session.client.subscribe(command["channel"])
    elif command["do"] == "unsubscribe":
        await session.client.unsubscribe(command["channel"])
    elif command["do"] == "publish":
        await session.client.publish(command["channel"], command["data"])
    elif command["do"] == "disconnect":
        del sessions[command["client"]]
        await session.close()
    else:
        raise ValueError(f"cannot {command['do']}")
    return {}


async def answer(command: dict[str, Any]) -> None:
    try:
        say({"tag": command["tag"], "ok": True, **await obey(command)})
    except Exception as error:
        say({"tag": command["tag"], "ok": False, "error": repr(error)})


async def main() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    say({"event": "ready"})
    running = set()
    while line := await lines.readline():
        task = asyncio.create_task(answer(json.loads(line)))
        # The loop itself keeps no task alive.
        running.add(task)
        task.add_done_callback(running.discard)


asyncio.run(main())
