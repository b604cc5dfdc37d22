"""From what is wanted and what is there to a graph of operations. Pure: no engine, no clock, no prompts."""

from dari.compose.plan.down import DownOptions, plan_down
from dari.compose.plan.lifecycle import plan_lifecycle
from dari.compose.plan.ops import Op, Plan, PlanError
from dari.compose.plan.options import UpOptions
from dari.compose.plan.up import plan_up, selected_services

__all__ = [
    "DownOptions",
    "Op",
    "Plan",
    "PlanError",
    "UpOptions",
    "plan_down",
    "plan_lifecycle",
    "plan_up",
    "selected_services",
]
