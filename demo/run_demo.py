"""The main job, end to end: a bag played through DDS into the nodes, answers and rewards out, a report.

    make demo                       the simulated sample bag
    make demo BAG=path/to/bag       your own bag

Prints a table and writes demo/out/<bag> (what the nodes published, as MCAP) and demo/report.html,
whose path is the last line. Exit status: 0 done, 1 a fault, 3 done, but the replay differs
or the bag is only partly readable.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
SAMPLE_BAG = REPOSITORY / "sample_bags/table_push"
PROFILE = REPOSITORY / "ros2_ws/src/spatial_mllm/config/fastdds_shm.xml"

if TYPE_CHECKING:
    from live import Session

    from spatial_mllm_core.evaluation.run import Plan, Question
    from spatial_mllm_core.evaluation.source import Source
    from spatial_mllm_core.reward.task import RewardTask


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    from spatial_mllm_core.errors import SpatialError

    try:
        return _demo(options)
    except SpatialError as fault:
        print(f"demo: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bag", type=Path, default=SAMPLE_BAG, help="bag to play (default: the simulated sample)"
    )
    parser.add_argument("--model", default="", help="model bundle: folder or name (default: the shipped one)")
    parser.add_argument("--rate", type=float, default=1.0, help="speed of playing (default %(default)s)")
    parser.add_argument(
        "--limit", type=int, default=150, metavar="N", help="at most N images (default %(default)s)"
    )
    parser.add_argument(
        "--newest-wins",
        action="store_true",
        help="play like a camera: never wait for the nodes, which drop images that they have no time for",
    )
    parser.add_argument("--out", type=Path, default=HERE / "out", help="folder for what the nodes publish")
    parser.add_argument("--report", type=Path, default=HERE / "report.html", help="page to write")
    options = parser.parse_args(arguments)
    if not options.rate > 0 or options.limit < 1:
        parser.error("--rate and --limit must be positive")
    return options


def _demo(options: argparse.Namespace) -> int:
    began_s = time.monotonic()
    from spatial_mllm_core.cli.evaluate import table
    from spatial_mllm_core.evaluation.evaluate import evaluate_recording
    from spatial_mllm_core.evaluation.plan import picture_stamps, standard_plan
    from spatial_mllm_core.evaluation.report import write_report
    from spatial_mllm_core.evaluation.source import look_around
    from spatial_mllm_core.evaluation.truth import BagTruth
    from spatial_mllm_core.model.spatial_model import SpatialModel
    from spatial_mllm_core.pipeline import SpatialPipeline

    source = look_around(options.bag)
    with BagTruth(source.path, source.topics) as truth:
        plan = standard_plan(source, truth, limit=options.limit)
    # loading it here first tells a broken bundle in one sentence before anything is started
    model = SpatialModel.load(options.model)
    path = source.path.absolute()
    name = path.stem if path.is_file() else path.name
    print(f"bag     {source.path}: {len(source.stamps_ns)} images of {source.topics.image}")
    print(f"model   {model.name}")
    output = options.out / name
    pictures = set(picture_stamps(source, source.stamps_ns[: options.limit]))
    peak_mb, live = _play_live(options, source, plan, output, pictures)

    print("replay  the same images once more, offline, and every recorded output against it")
    evaluation = evaluate_recording(source, output, SpatialPipeline(model))
    evaluation.frames_in = len(live.published_ns)
    print()
    print(table(evaluation))
    if peak_mb is not None:
        print(f"peak resident memory of bringup: {peak_mb:.0f} MB")
    for note in evaluation.notes:
        print(f"note: {note}")
    write_report(options.report, evaluation)
    print(
        f"the outputs of the nodes are in {_short(output)}; the whole took {time.monotonic() - began_s:.0f} s"
    )
    print(_short(options.report))
    assert evaluation.replay is not None
    return 0 if evaluation.replay.is_equal and not evaluation.is_partial else 3


def _play_live(
    options: argparse.Namespace, source: Source, plan: Plan, output: Path, pictures: set[int]
) -> tuple[float | None, Session]:
    """Start the nodes, play, ask, record; returns bringup's peak memory and the closed session."""
    sys.path.insert(0, str(HERE))
    try:
        import rclpy  # noqa: F401
        import spatial_mllm_msgs.msg  # noqa: F401

        import spatial_mllm  # noqa: F401
    except ImportError as error:
        from spatial_mllm_core.errors import ErrorCode, SpatialError

        raise SpatialError(
            ErrorCode.NOT_READY,
            f"the demo needs ROS 2 and the built nodes ({error}); run it with 'make demo'",
        ) from error
    import live

    from spatial_mllm_core.bags import BagWriter, open_bag

    live.prepare_environment(PROFILE)
    with open_bag(source.path) as bag:
        type_name = next(t.type_name for t in bag.topics() if t.name == source.topics.image)
    if output.exists():
        shutil.rmtree(output)  # what an earlier demo recorded of this bag
    waits = not options.newest_wins
    with BagWriter(output) as recording:
        opened = live.open_session(recording, source.topics, type_name, options.model, pictures, waits=waits)
        with opened as (session, bringup):
            session.wait_until_ready()
            print(
                f"nodes   bringup runs as a process of its own, on ROS_DOMAIN_ID {os.environ['ROS_DOMAIN_ID']}"
            )
            began_s = time.monotonic()
            task = plan.reward_tasks[0]
            questions = list(plan.questions)

            def on_image(stamp_ns: int) -> None:
                due = [q for q in questions if max(q.stamps_ns) == stamp_ns]
                if stamp_ns != task.reference_stamp_ns and not due:
                    return
                session.wait_for_frame(stamp_ns)
                if stamp_ns == task.reference_stamp_ns:
                    _set_reward_task(session, task)
                for question in due:
                    questions.remove(question)
                    _ask(session, question)

            live.play(
                source.path,
                source.topics,
                session,
                rate=options.rate,
                waits=waits,
                limit=options.limit,
                on_image=on_image,
            )
            session.wait_for_all(60.0 if waits else 3.0)
            session.wait_for_rewards(task.reference_stamp_ns, 5.0)
            took_s = time.monotonic() - began_s
            session.settle()
            print(
                f"played  {len(session.published_ns)} images in {took_s:.1f} s, "
                f"{len(session.answered_ns)} answered with depth, {len(session.judged_ns)} with a reward"
            )
            return bringup.peak_mb(), session
    raise AssertionError("unreachable")


def _set_reward_task(session: Session, task: RewardTask) -> None:
    from spatial_mllm_core.errors import SpatialError

    try:
        used = session.set_reward_task(task)
    except SpatialError as fault:
        print(f"reward  refused: {fault}")
        # without calibration no image gets depth, and waiting for it would be in vain
        session.expects_depth = not 200 <= int(fault.code) < 300
        return
    print(f"reward  task '{used.task_id}' set through the service: {used.description}")


def _ask(session: Session, question: Question) -> None:
    from spatial_mllm_core.evaluation.scorer import words_of

    print(f"ask     {words_of(question)}".replace("\u00a0", " "))
    pieces: list[str] = []
    result = session.ask(question, pieces.append)
    if result.error_code:
        print(f"        E{result.error_code}: {result.error_msg}")
        return
    streamed = " | ".join(pieces[:6]) + (" | …" if len(pieces) > 6 else "")
    print(f"        streamed: {streamed}")
    print(f"        {result.answer.text}  ({result.answer.latency_s * 1000:.0f} ms)")


def _short(path: Path) -> str:
    """A path as it is typed from the repository, where possible."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    sys.exit(main())
