"""Files in and out of PPYDFS by its own client, by several processes at once.

ppydfs_files.py OPERATION FOLDER PREFIX FILES WORKERS: OPERATION is upload, download or compare; file I is FOLDER/I here
and PREFIX-I there. Prints what perf needs, key=value a line.
"""

import filecmp
import multiprocessing
import os
import resource
import sys
import time

from ppydfs import Client

operation, folder, prefix, files, workers = sys.argv[1:]
fork = multiprocessing.get_context("fork")
ready = fork.Barrier(int(workers) + 1)
# Taken in turn, and those that went well.
taken, succeeded = fork.Value("q", 0), fork.Value("q", 0)


def one(client, number, index):
    here, there = f"{folder}/{index}", f"{prefix}-{index}"
    if operation == "upload":
        return client.upload_file(here, there)
    if operation == "download":
        return client.download_file(there, os.devnull)
    came = f"{folder}/came-{number}"
    good = client.download_file(there, came)
    if good and not filecmp.cmp(here, came, shallow=False):
        sys.exit(f"{there} came back otherwise")
    return good


def worker(number):
    # The client says a line for each file.
    sys.stdout = open(os.devnull, "w")
    client = Client("localhost:9000")
    ready.wait()
    while True:
        with taken.get_lock():
            index = taken.value
            taken.value += 1
        if index >= int(files):
            return
        if one(client, number, index):
            with succeeded.get_lock():
                succeeded.value += 1


processes = [fork.Process(target=worker, args=(number,), daemon=True) for number in range(int(workers))]
for process in processes:
    process.start()
ready.wait()
started = time.monotonic()
for process in processes:
    process.join()
seconds = time.monotonic() - started
if any(process.exitcode for process in processes):
    sys.exit(1)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"seconds={seconds}")
print(f"cpu={used.ru_utime + used.ru_stime}")
print(f"succeeded={succeeded.value}")
