"""The main loop of every executable: one executor, autostart, signals, an orderly end.

Exit status: 0 after SIGINT or SIGTERM, 1 when the model cannot be loaded, 2 for bad arguments or
parameters; each failure is one sentence.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from spatial_mllm.node import SpatialNode
from spatial_mllm.parameters import ParameterFault
from spatial_mllm_core.errors import SpatialError

SPIN_S = 1.0  # signals and a loaded model wake the executor before that


def run(make_nodes: Callable[[], Sequence[SpatialNode]], args: list[str] | None = None) -> int:
    """Make the nodes, spin until a signal, take them down; returns the exit status."""
    stop = _StopFlag()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:
        return _refuse(error)
    try:
        nodes = make_nodes()
    except (ParameterFault, SpatialError) as fault:
        rclpy.shutdown()
        return _refuse(fault)
    executor = SingleThreadedExecutor()
    for node in nodes:
        executor.add_node(node)
    stop.on_set(executor.wake)
    try:
        return _spin(executor, nodes, stop)
    finally:
        _take_down(executor, nodes)


class _StopFlag:
    """Set by SIGINT and SIGTERM; launch sends SIGINT twice, the second changes nothing.

    A thread hears of them through the wakeup descriptor: while the executor waits inside the
    middleware no Python handler runs, and looking ten times a second cost more CPU than taking in
    the images.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._wake: Callable[[], object] | None = None
        self._heard, said = os.pipe()
        os.set_blocking(said, False)
        signal.set_wakeup_fd(said, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def on_set(self, wake: Callable[[], object]) -> None:
        """Call `wake` when a signal comes."""
        self._wake = wake
        if self.is_set:
            wake()

    def _on_signal(self, _number: int, _frame: Any) -> None:
        self.is_set = True

    def _listen(self) -> None:
        while os.read(self._heard, 1):
            self.is_set = True
            if self._wake is not None:
                self._wake()


def _spin(executor: SingleThreadedExecutor, nodes: Sequence[SpatialNode], stop: _StopFlag) -> int:
    owner = nodes[0]
    waiting = [node for node in nodes if node.life.autostart]
    loaded = owner.start_loading() if waiting else None
    if loaded is not None:
        loaded.add_done_callback(lambda _: executor.wake())
    while not stop.is_set and rclpy.ok():
        if loaded is not None and loaded.done():
            fault = loaded.exception()
            if fault is not None:
                owner.get_logger().fatal(str(fault))
                return 1
            for node in waiting:
                if not _bring_up(node):
                    node.get_logger().fatal("the node could not be started")
                    return 1
            loaded = None
        try:
            executor.spin_once(timeout_sec=SPIN_S)
        except ExternalShutdownException:
            break
        except Exception:
            # one bad message or callback must not take the others down
            owner.get_logger().error(traceback.format_exc())
    return 0


def _bring_up(node: SpatialNode) -> bool:
    if node.trigger_configure() != TransitionCallbackReturn.SUCCESS:
        return False
    return bool(node.trigger_activate() == TransitionCallbackReturn.SUCCESS)


def _take_down(executor: SingleThreadedExecutor, nodes: Sequence[SpatialNode]) -> None:
    try:
        for node in reversed(nodes):
            if not node.is_finalized:
                node.trigger_shutdown()
        if rclpy.ok():
            executor.spin_once(timeout_sec=0)  # answers to those who still wait
        for node in reversed(nodes):
            executor.remove_node(node)
            node.destroy_node()
        executor.shutdown(timeout_sec=1.0)
    except Exception:
        traceback.print_exc()
    rclpy.try_shutdown()


def _refuse(error: Exception) -> int:
    print(" ".join(str(error).split()), file=sys.stderr)
    return 2
