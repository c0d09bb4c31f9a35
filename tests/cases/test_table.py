"""The field's cases: one test for each row of the table that reports them."""

import os
import shutil

import pytest

from tests.cases.checks import Check, completes, refused, stopped, streams
from tests.cases.client import TS_PADDING, Client, Services, append, meanwhile, namespace, odd
from tests.cases.tasks import JOBS, cleanup, load
from tests.support.waiting import until

SETUPS = {
    "move_bind_same_file": "mkdir b1 b2; cp av.mkv b1/only.mkv",
    "copy_delete_via_symlink": "mkdir real; ln -s real alias; cp av.mkv real/f.mkv",
    "hole_mkv": "cp zero30-70.av.mkv zero50.mkv",
    "owner_overwrite": "cp av.mkv own.mkv",
    "hb_preset_noname": "cp preset.json 'my preset.json'",
    "progress_timeout_slowmo": "cp clip.mkv big.mkv",  # sizes do not matter: a filter makes these last
    "twopass_slots_1": "cp clip.mkv m25.mkv",
    "twopass_slots_2": "cp clip.mkv c25.mkv",
}
"""Shell commands that make the files of a case that have no recipe of their own."""

INGREDIENTS = ("av.mkv", "zero30-70.av.mkv", "clip.mkv", "preset.json")


def prepare(client: Client, case: str) -> None:
    """Prepare the client's directory for a case."""
    if case in SETUPS:
        client.put(*INGREDIENTS)
        client.shell(SETUPS[case])
    client.provide(load(case))


FILM = "video h264 320x180"
ROWS: dict[str, Check] = {
    "copy_delete_via_symlink": refused("real/f.mkv", "same file"),
    "hole_mkv": stopped("zero50.mkv", "damaged", ("2.4 s of 8.0 s", "2.5 s of 8.0 s", "2.6 s of 8.0 s")),
    "bad4k": completes("frames", "42", ("error", "invalid"), changed=["b4.mkv"]),
    "c1_V": completes(changed=["c1V.mkv"], holds={"c1V.mkv": [FILM, "audio aac"]}),
    "c1_v": refused("source_maps[0]", "cover", "V"),
    "concat_missing_part": refused("listbad.txt", "nothere.mkv"),
    "hb_preset_noname": completes(changed=["hb5.mkv"], holds={"hb5.mkv": ["video h264 96x54", "audio"]}),
    "hb_preset_bad_noname": refused("badpreset.json"),
    "hb_allaudio_none": stopped("audio"),
    "hb_mp4_allsubs": completes("subtitle", changed=["has.mp4"]),
    "lang_map": completes(changed=["o_lang.mkv"], holds={"o_lang.mkv": [FILM, "audio eng Commentary"]}),
    "map_negative": completes(changed=["o_neg.mkv"], holds={"o_neg.mkv": [FILM, "audio jpn", "audio eng"]}),
    "faststart": refused("output_maps[0].options.movflags", "output_options"),
    "metadata_title": refused("output_maps[0].options.metadata", "output_options"),
    "unknown_option_2nd": refused("crff", "crf"),
    "mkvex_longnames": completes(
        changed=[each["filename"] for each in load("mkvex_longnames")["tasks"][0]["data"]["tracks"]]
    ),
    "thumb_pct": completes(changed=["100% %d wolf.jpg"]),
    "pgs_reason": stopped(("bitmap to bitmap", "text to text", "bitmap", "subtitle encoding")),
    "quoted_value": completes(
        "quot", changed=["o_quoted.mkv"], holds={"o_quoted.mkv": ["video 160x90", "audio flac Stereo (FLAC)"]}
    ),
    "flag_value": refused("shortest", "victim.mkv"),
    "playlist_as_video": refused("upload.mp4", ("HLS", "playlist", "list")),
    "unknown_keys": refused("priority", "on_failure", "enabled", "timeout"),
    "owner_overwrite": completes(changed=["own.mkv"]),  # its attributes: see `test_attributes_stay`
    "cleanup_full_example": completes("shared/cool.srt", changed=["s.srt", "shared/cool.srt"]),
}


def test_every_case_has_its_row() -> None:
    """Each case is in the table, or has a test of its own below."""
    more = {"move_bind_same_file", "growing_ts", "twopass_slots_1", "twopass_slots_2"}
    more |= {"progress_timeout_slowmo", "html_entities"}

    assert JOBS.keys() == ROWS.keys() | more


@pytest.mark.parametrize("case", ROWS)
def test_row(case: str, client: Client) -> None:
    """The case ends with the right value of the field's table."""
    prepare(client, case)

    ROWS[case](client.run(load(case), by_program=True))


def test_move_into_a_bind_mount(client: Client) -> None:
    """A move between two mounts of one directory is refused, and the file stays."""
    prepare(client, "move_bind_same_file")
    with namespace(client, "mount --bind b1 b2") as prefix:
        stopped("b1/only.mkv", "same file")(client.run(load("move_bind_same_file"), prefix=prefix))


def test_change_of_case_alone(client: Client) -> None:
    """On a file system without case, a move to the same name in other letters renames the file."""
    client.put("clip.mkv", directory="share")
    with namespace(client, odd("share", "fold")) as prefix:
        result = client.run(cleanup(move=[("share/clip.mkv", "share/Clip.mkv")]), prefix=prefix)

    completes(changed=["share/clip.mkv", "share/Clip.mkv"])(result)
    assert os.listdir(client.work / "share") == ["Clip.mkv"]


def test_growing_source(client: Client) -> None:
    """A source that grows during the job is an error, and is not deleted."""
    client.put("clip.ts")
    shutil.copy(client.work / "clip.ts", client.work / "grow.ts")
    with meanwhile(lambda: append(client.work / "grow.ts", TS_PADDING)):
        result = client.run(load("growing_ts"))

    stopped("grow.ts", "written to meanwhile", changed=["grow.ts"])(result)
    assert (client.work / "grow.ts").exists()


def test_progress_of_an_uncertain_length(client: Client) -> None:
    """No limit ends a job because a filter makes the output longer than its source."""
    document = load("progress_timeout_slowmo")
    document["tasks"][0]["data"]["output_maps"][0]["options"]["vf"] += ",realtime=speed=2"  # slow on any machine
    client.configure(progress_timeout="2s")
    prepare(client, "progress_timeout_slowmo")

    completes(changed=["pp.mkv"])(client.run(document))


def test_two_passes_in_two_slots(client: Client, services: Services) -> None:
    """Two jobs of two passes at once share no log, and leave none."""
    documents = [load("twopass_slots_1"), load("twopass_slots_2")]
    for number, document in enumerate(documents, 1):
        prepare(client, f"twopass_slots_{number}")
        for task in document["tasks"]:  # in real time, so that both run at once on any machine
            task["data"]["output_maps"][0]["options"] |= {"vf": "realtime=speed=2", "preset": "ultrafast"}
    services.start_worker(WORKER_SLOTS="2")
    ids = [services.post(document) for document in documents]
    until(lambda: len(services.working()) == 2, "both to run")

    for job_id, name in zip(ids, ("q1.mkv", "q2.mkv"), strict=True):
        assert (result := services.verdict(job_id)).completed, str(result)
        assert streams(client.work / name)
    assert not list(client.work.glob("*2pass*")), "the logs are the jobs' own, and gone"


def test_entities_that_are_none(client: Client) -> None:
    """`run` unescapes nothing in a job's file."""
    expected = ["done/Q&notes.srt", "done/a&copy=b.srt", "done/Tom &amp; Jerry.srt"]

    completes(changed=expected)(client.run(load("html_entities")))
