"""Ways in which agents work together, each a callable ``(task, team) -> transcript`` in a file of its own."""

from cert.coordination.strategies.best_of_n import BestOfN
from cert.coordination.strategies.choice import Choice, Chooser, MajorityChooser
from cert.coordination.strategies.debate import Debate
from cert.coordination.strategies.discussion import Discussion
from cert.coordination.strategies.parallel import Parallel
from cert.coordination.strategies.protocol import Strategy
from cert.coordination.strategies.registry import get, names, parse, register
from cert.coordination.strategies.sequential import Sequential
from cert.coordination.strategies.team import Agent, Team
from cert.coordination.strategies.vote import Vote

__all__ = [
    "Agent",
    "BestOfN",
    "Choice",
    "Chooser",
    "Debate",
    "Discussion",
    "MajorityChooser",
    "Parallel",
    "Sequential",
    "Strategy",
    "Team",
    "Vote",
    "get",
    "names",
    "parse",
    "register",
]
