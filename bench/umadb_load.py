"""Conditional appends to UmaDB by its Python client (pip install umadb): URL RUN CLIENTS EVENTS SECONDS PAYLOAD.

Each client appends events under a label of its own if there is none after its last one. Prints for how long, and how long each append
took, in microseconds. Processes share the clients, as Python's lock would hold up one.
"""

import multiprocessing
import sys
import threading
import time

import umadb


def client(connection, label, events, end, payload, times):
    event = umadb.Event("deposited", b"x" * payload, [label])
    query = umadb.Query([umadb.QueryItem(None, [label])])
    after = None
    while (start := time.perf_counter()) < end:
        after = connection.append([event] * events, umadb.AppendCondition(query, after))
        times.append(int((time.perf_counter() - start) * 1e6))


def process(url, run, numbers, events, end, payload, results):
    connection, times = umadb.Client(url), []
    threads = [
        threading.Thread(
            target=client, args=(connection, f"{run}-{number}", events, end, payload, times)
        )
        for number in numbers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(times)


def main():
    url, run = sys.argv[1:3]
    clients, events, seconds, payload = map(int, sys.argv[3:7])
    context, count = multiprocessing.get_context("spawn"), min(clients, 4)
    results = context.SimpleQueue()
    # The clock counts from the start of the machine, and so is the same in each process.
    begin = time.perf_counter() + 0.5
    end = begin + seconds
    workers = [
        context.Process(
            target=process,
            args=(url, run, range(part, clients, count), events, end, payload, results),
        )
        for part in range(count)
    ]
    for worker in workers:
        worker.start()
    times = [time for _ in workers for time in results.get()]
    for worker in workers:
        worker.join()
    print(seconds * 1_000_000, *times)


if __name__ == "__main__":
    main()
