"""A model server that answers every call at once: ``python ops/bench/instant_model.py PORT``. What it costs is the
service's own. Calls are counted at ``/count``."""

import asyncio
import sys

ANSWER = (
    b'{"id":"chatcmpl-0","object":"chat.completion","created":0,"model":"instant","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"It is \\\\boxed{5}."},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,'
    b'"completion_tokens":10,"total_tokens":30}}'
)


class Model:
    """Keep-alive HTTP/1.1, just enough of it."""

    def __init__(self) -> None:
        self.calls = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = 0
                for line in head.split(b"\r\n"):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                await reader.readexactly(length)
                if head.startswith(b"POST"):
                    self.calls += 1
                    body = ANSWER
                else:
                    body = str(self.calls).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                    % (len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def main() -> None:
    """Until it is killed."""
    model = Model()
    server = await asyncio.start_server(model.serve, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
