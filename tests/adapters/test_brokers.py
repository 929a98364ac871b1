"""What Celery is told of each broker."""

from cope.adapters.celery_wakeup import make_celery


def test_redis_and_no_broker_get_short_time_outs_and_no_prefetch() -> None:
    for url in ("redis://localhost/0", ""):
        conf = make_celery(url).conf
        assert conf.worker_disable_prefetch is True
        assert conf.broker_transport_options["socket_connect_timeout"] == 2
        assert conf.task_create_missing_queue_type == "classic"


def test_rabbitmq_gets_quorum_queues_confirmed_publishing_and_no_global_prefetch() -> None:
    app = make_celery("amqp://guest:guest@localhost//")
    assert (app.conf.task_default_queue_type, app.conf.task_create_missing_queue_type) == ("quorum", "quorum")
    assert app.conf.worker_detect_quorum_queues is True
    assert app.conf.broker_transport_options["confirm_publish"] is True
    queue = app.amqp.queues["large"]
    assert queue.queue_arguments == {"x-queue-type": "quorum"}
    assert queue.exchange.type == "topic", "delays of quorum queues need topic exchanges"
