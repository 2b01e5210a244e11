"""What the packages offer is a decision: a change of it fails here first."""

import importlib

import pytest

SURFACE = {
    "cert": ["__version__"],
    "cert.answers": [
        "AsyncCascade", "AsyncEquivalence", "AsyncJudge", "AsyncJudgeEquivalence", "CallableMatcher",
        "Cascade", "ChoiceMatcher", "Clustering", "EXTRACTORS", "Entailment", "EntailmentEquivalence",
        "EntailmentLabel", "Equivalence", "ExactMatcher", "Extraction", "Extractor", "Judge",
        "JudgeEquivalence", "JudgeRequest", "Judgement", "Matcher", "MatcherEquivalence", "Normalization",
        "NormalizedMatcher", "Number", "NumericMatcher", "RegexMatcher", "cluster", "cluster_async",
        "extract", "find_numbers", "matches_any", "parse_number", "same_number", "squad_normalize",
    ],
    "cert.backends": [
        "Backend", "Capabilities", "Control", "Generation", "GenerationRequest", "Message", "ModelIdentity",
        "Outcome", "Prompt", "Sampling", "ScoreRequest", "TokenBlock",
    ],
    "cert.coordination.drift": [
        "Acknowledgement", "Alarm", "Anchor", "AnchorSet", "Check", "DriftMonitor", "DriftStatus", "Kind",
        "Plan", "Shift",
    ],
    "cert.coordination.prompts": ["Prompt", "PromptSet", "ROLES", "known_prompts", "load_prompts"],
    "cert.coordination": [
        "Agent", "AgentResponse", "AnthropicClientWithResilience", "BaselineMeasurement", "BaselineMeasurer",
        "ChatClient", "ChatIdentity", "ChatRequest", "Completion", "CoordinationMetrics",
        "CoordinationOrchestrator", "CoordinationReport", "Evaluation", "FunctionSystem",
        "InProcessChatClient", "Interval", "OpenAIChatClient", "QualityEvaluator", "System", "Task", "Team",
        "TeamSystem", "Tool", "Transcript", "Usage", "Verdict",
    ],
    "cert.coordination.evaluators": [
        "BlockingJudge", "CalibratedShare", "CallableEvaluator", "ChatJudge", "Criterion", "Evaluator",
        "JudgeFigures", "MatchEvaluator", "OrderFigures", "PairwiseEvaluator", "PairwiseJudge", "Preference",
        "QualityEvaluator", "Rubric", "calibrated_share", "choice", "exact", "flip_rate", "judge_figures",
        "krippendorff_alpha", "normalized", "numeric", "order_figures", "regex", "repeat_deviation",
    ],
    "cert.coordination.statistics": [
        "Decision", "Difference", "Discordant", "DropDetector", "DropState", "Estimate", "HolmStep",
        "Inference", "MARGIN", "NoiseFloor", "Pairs", "Qualities", "Rules", "SequentialDecision", "Simulated",
        "VarianceComponents", "agent_spread", "best_agents", "cost_per_further_point", "cost_per_point",
        "decide", "decide_all", "decide_sequentially", "difference", "discordance_spread", "gamma",
        "gamma_budget", "holm", "inference", "minimum_detectable_effect", "noise_floor", "omega",
        "omega_best_agent", "omega_best_sample", "omega_bias", "pair", "ratio", "task_ratios", "tasks_for",
        "tasks_needed", "variance_components",
    ],
    "cert.coordination.store": [
        "CacheStats", "CachedChatClient", "CachedEvaluator", "CompletionStore", "LostCall", "LostCalls",
        "keeping", "open_store",
    ],
    "cert.coordination.strategies": [
        "Agent", "BestOfN", "Choice", "Chooser", "Debate", "Discussion", "MajorityChooser", "Parallel",
        "Sequential", "Strategy", "Team", "Vote", "get", "names", "parse", "register",
    ],
    "cert.signals": [
        "GenerationSignals", "RunningSignals", "SampleSignals", "SignalColumns", "SignalOptions",
        "SignalStream", "StepSignals", "TokenSteps", "analyze_steps", "discrete_semantic_entropy", "energy",
        "entropy_bounds", "predictive_entropy", "reduce_logits", "sample_signals", "signal_columns",
        "step_signals", "top_k_entropy_ceiling", "weighted_semantic_entropy",
    ],
    "cert.trajectory": [
        "AsyncTrajectoryStream", "CERTTrajectoryAnalyzer", "Check", "GateDecision", "HamiltonianEngine",
        "HamiltonianModelResource", "HamiltonianMonitor", "HamiltonianVisualizer", "LoadOptions", "Message",
        "ReasoningMetrics", "ReasoningTrajectoryMonitor", "SamplesAnalysis", "StreamedToken",
        "TrajectoryAnalysis", "TrajectoryConfig", "TrajectoryStream", "Verdict", "analyze_trajectory",
        "load_model_for_monitoring",
        "unload_model",
    ],
    "cert.trajectory.evaluation": ["Estimate", "EvaluationReport", "ScoreEvaluation", "evaluate_scores"],
    "cert.trajectory.evaluation.report": ["render_evaluation"],
    "cert.observability": [],
    "cert.testing": [
        "Account", "CapturedEvents", "FakeClock", "FaultServer", "RecordedRequest", "Reply", "Token",
        "captured_events", "error", "ok",
    ],
}  # fmt: skip


@pytest.mark.parametrize("package", SURFACE)
def test_a_package_offers_what_it_is_said_to(package):
    """A name that disappears breaks users; one that appears is a promise."""
    module = importlib.import_module(package)
    assert sorted(module.__all__) == SURFACE[package]
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize(
    "path",
    [
        *(
            f"cert.core.{name}"
            for name in ("resources", "errors", "retry", "circuit_breaker", "health", "config")
        ),
        *(
            f"cert.coordination.{name}"
            for name in ("types", "client", "orchestrator", "evaluator", "baseline")
        ),
        "cert.observability.logging",
        "cert.observability.metrics",
        *(f"cert.trajectory.{name}" for name in ("resources", "engine", "api", "types")),
    ],
)
def test_module_names_of_the_v4_specification_import(path):
    """Programs written to the specification import these by name."""
    importlib.import_module(path)
