"""librdkafka's mock broker as a process: ``python -m ops.campaigns.mock_kafka`` prints its port, ends with its stdin.

It speaks the protocol over TCP and keeps its log in memory; it does not know an idempotent producer's repetitions.
"""

import sys

from confluent_kafka.admin import AdminClient


def main() -> None:
    """Until standard input is closed."""
    broker = AdminClient({"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0})
    print(next(iter(broker.list_topics(timeout=10).brokers.values())).port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
