"""A service that stops in the phase of a job that a test asks for, so that the test can kill it.

A test creates a file with the name of the phase in the folder of the variable PHASES. The service
that stops there renames the file to `<phase>.<process id>`.

claim       after the claim is recorded
fetch       before the input in a store is downloaded
download    between the downloaded file and its row
shard       between a shard's file and its record
assembly    between the assembled output and its record
publish     between the published output and the end of its workspace
upload      between the object with the output in a store and the end of the job
finish      before the end of the job is recorded
"""

STOPPING_SERVICE = """
import os, time
from pathlib import Path
from hsoftmax import service
from hsoftmax.scoring.job import committer, finalize
from hsoftmax.service.jobs import completion, execution, input_download, job_thread, output_upload
folder = Path(os.environ["PHASES"])

def stop_in(phase):
    try:
        (folder / phase).rename(folder / f"{phase}.{os.getpid()}")
    except FileNotFoundError:
        return
    time.sleep(600)

def patch(module, name, phase, after=False):
    original = getattr(module, name)
    def patched(*args, **kwargs):
        if not after:
            stop_in(phase)
        result = original(*args, **kwargs)
        if after and result is not False and (phase != "claim" or result is not None):
            stop_in(phase)
        return result
    setattr(module, name, patched)

patch(job_thread, "claim_next_job", "claim", after=True)
patch(committer, "sync_and_rename", "shard", after=True)
patch(finalize, "_summary", "assembly")
patch(finalize, "remove_workspace", "publish")
patch(completion, "finish", "finish")
patch(execution, "fetch_input", "fetch")
patch(input_download, "sync_and_rename", "download", after=True)
patch(output_upload, "_create", "upload", after=True)
service.serve(service.Settings())
"""
