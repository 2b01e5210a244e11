"""Our numbers and those of peer libraries' own code, on the same recorded tokens and samples.

    python benchmarks/detection.py --traces traces.npz
    PYTHON benchmarks/peers_formulas.py traces.npz [--out benchmarks/results/peers_formulas.json]

PYTHON is that of an environment with one of the peers, and needs nothing of ours: they pin versions that do
not go together.

- LM-Polygraph: `pip install -U pip`, then `pip install lm-polygraph`
- UQLM: `pip install uqlm "pyarrow<22"` (its numpy is older than what a newer pyarrow takes)
- artefactual: `pip install artefactual`

Run it once in each; a run replaces the part of its peer in the results and leaves the others. Nothing is
generated: the peer's formulas get the log-probabilities, candidates and samples of the file.

Each row has the largest difference between the peer's number, turned into ours where the definition says how,
and ours. *same*: the definition is one, and the two have to agree to 1e-6. *other*: it is not; the row says
why, and how the two rank the same answers (Spearman).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

ROOT: Final = Path(__file__).parents[1]
SAMPLES: Final = 10
TOLERANCE: Final = 1e-6
Array = np.ndarray[Any, np.dtype[Any]]


def parts(column: Array, lengths: Array) -> list[Array]:
    """Return the tokens of each answer."""
    return np.split(column, np.cumsum(lengths)[:-1])


def ranks(values: Array) -> Array:
    _, place, size = np.unique(np.round(values, 9), return_inverse=True, return_counts=True)
    return (np.cumsum(size) - (size - 1) / 2)[place]


def row(name: str, ours: Array, theirs: Any, difference: str = "") -> dict[str, Any]:
    """Compare two columns, or two numbers; an empty ``difference`` says that they are to be the same."""
    a, b = np.atleast_1d(np.asarray(ours, float)), np.atleast_1d(np.asarray(theirs, float))
    largest = float(np.max(np.abs(a - b)))
    correlation = float(np.corrcoef(ranks(a), ranks(b))[0, 1]) if len(a) > 2 else None
    found = {"formula": name, "n": len(a), "largest_difference": largest, "rank_correlation": correlation}
    found |= {"definition": "other" if difference else "same", "why": difference}
    if not difference:
        found["agrees"] = largest <= TOLERANCE
    print(json.dumps(found), flush=True)
    return found


def samples_of(traces: dict[str, Array]) -> list[list[tuple[str, Array]]]:
    """Return text and token log-probabilities of the samples of each question."""
    tokens = parts(traces["sample_logprob"], traces["sample_lengths"])
    pairs = list(zip(traces["sample_texts"].tolist(), tokens, strict=True))
    return [pairs[start : start + SAMPLES] for start in range(0, len(pairs), SAMPLES)]


def clusters_of(samples: list[tuple[str, Array]]) -> list[list[int]]:
    """Return the places of samples with the same text."""
    found: dict[str, list[int]] = {}
    for place, (text, _) in enumerate(samples):
        found.setdefault(text, []).append(place)
    return list(found.values())


def lm_polygraph(traces: dict[str, Array], ours: dict[str, Array]) -> list[dict[str, Any]]:
    from lm_polygraph.estimators import (
        MaximumSequenceProbability,
        MeanTokenEntropy,
        MonteCarloNormalizedSequenceEntropy,
        MonteCarloSequenceEntropy,
        Perplexity,
        SelfCertainty,
        SemanticEntropy,
    )
    from lm_polygraph.stat_calculators.entropy import EntropyCalculator
    from lm_polygraph.ue_metrics import ROCAUC, PredictionRejectionArea

    lengths = traces["lengths"]
    full = traces["full_logprobs"].astype(np.float64)
    whole = int(np.searchsorted(np.cumsum(lengths), len(full))) + 1
    distributions = parts(full, lengths[:whole])
    entropy = EntropyCalculator()({"greedy_log_probs": distributions})["entropy"]
    samples = samples_of(traces)
    clusters = [clusters_of(one) for one in samples]
    owner = [{place: number for number, members in enumerate(one) for place in members} for one in clusters]
    stats = {
        "greedy_log_likelihoods": parts(traces["logprob"], lengths),
        "greedy_log_probs": distributions,
        "entropy": entropy,
        "sample_texts": [[text for text, _ in one] for one in samples],
        "sample_tokens": [[tokens for _, tokens in one] for one in samples],
        "sample_log_probs": [[float(tokens.sum()) for _, tokens in one] for one in samples],
        "semantic_classes_entail": {"class_to_sample": clusters, "sample_to_class": owner},
    }
    wrong = traces["wrong"].astype(float)
    msp = -ours["sequence_logprob"]
    area = PredictionRejectionArea(max_rejection=0.5)
    # The peer's areas, put together as its paper has it; chance is the accuracy, in place of 1,000 shuffles.
    chance = 1.0 - float(wrong.mean())
    prr = (area(msp, 1.0 - wrong) - chance) / (area(wrong, 1.0 - wrong) - chance)
    return [
        row("MaximumSequenceProbability = −sequence_logprob", msp, MaximumSequenceProbability()(stats)),
        row("Perplexity = mean_surprisal", ours["mean_surprisal"], Perplexity()(stats)),
        row("EntropyCalculator, MeanTokenEntropy = mean entropy",
            ours["whole_entropy"], MeanTokenEntropy()(stats)),
        row("SelfCertainty = −mean_self_certainty", -ours["whole_self_certainty"], SelfCertainty()(stats)),
        row("MonteCarloSequenceEntropy = predictive_entropy",
            ours["predictive_entropy_10"], MonteCarloSequenceEntropy()(stats)),
        row("MonteCarloNormalizedSequenceEntropy = normalized_predictive_entropy",
            ours["normalized_predictive_entropy_10"], MonteCarloNormalizedSequenceEntropy()(stats)),
        row("SemanticEntropy(frequency) = discrete_semantic_entropy", ours["discrete_semantic_entropy_10"],
            SemanticEntropy(class_probability_estimation="frequency")(stats)),
        row("SemanticEntropy(sum) and semantic_entropy_unnormalized",
            ours["semantic_entropy_unnormalized_10"], SemanticEntropy()(stats),
            "theirs is the mean of −ln Σ p over the samples (arXiv 2302.09664), with probabilities that do "
            "not add up to 1 and repeated texts counted again; ours divides by their sum (Nature 2024)"),
        row("ROCAUC of MSP", ours["auroc_of_msp"], ROCAUC()(msp, wrong)),
        row("PredictionRejectionArea(0.5) of MSP as PRR", ours["prr_of_msp"], prr),
    ]  # fmt: skip


def uqlm(traces: dict[str, Array], ours: dict[str, Array]) -> list[dict[str, Any]]:
    from uqlm.nli.entropy_utils import (
        compute_cluster_probabilities,
        compute_response_probabilities,
        compute_semantic_entropy,
    )
    from uqlm.white_box.sampled_logprobs import SampledLogprobsScorer
    from uqlm.white_box.single_logprobs import SingleLogprobsScorer
    from uqlm.white_box.top_logprobs import TopLogprobsScorer

    logprobs, tops = (parts(traces[name], traces["lengths"]) for name in ("logprob", "top_logprobs"))
    responses = [
        [
            {"logprob": float(chosen), "top_logprobs": [{"logprob": float(one)} for one in top]}
            for chosen, top in zip(*answer, strict=True)
        ]
        for answer in zip(logprobs, tops, strict=True)
    ]
    k = traces["top_logprobs"].shape[1]
    single = SingleLogprobsScorer(length_normalize=True).evaluate(responses)
    plain = SingleLogprobsScorer(["sequence_probability"], length_normalize=False).evaluate(responses)
    top = TopLogprobsScorer(top_k_logprobs=k).evaluate(responses)
    samples = samples_of(traces)
    told = [[[{"logprob": float(one)} for one in tokens] for _, tokens in answer] for answer in samples]
    entropies: dict[str, list[float]] = {"discrete": [], "normalised": [], "whole": []}
    for answer, tokens in zip(samples, told, strict=True):
        clusters = clusters_of(answer)
        for name, normal in (("normalised", True), ("whole", False)):
            probability, even = compute_response_probabilities(tokens, SAMPLES, normal)
            found = compute_cluster_probabilities(probability, clusters)
            entropies[name].append(compute_semantic_entropy(found))
        entropies["discrete"].append(compute_semantic_entropy(compute_cluster_probabilities(even, clusters)))
    monte_carlo = SampledLogprobsScorer(["monte_carlo_probability"]).evaluate(
        responses=traces["texts"].tolist(), sampled_responses=[], logprobs_results=[one[0] for one in told],
        sampled_logprobs_results=[one[1:] for one in told],
    )["monte_carlo_probability"]  # fmt: skip
    return [
        row("min_probability = exp(−max_surprisal)",
            np.exp(-ours["max_surprisal"]), single["min_probability"]),
        row("sequence_probability = 1 / perplexity", 1 / ours["perplexity"], single["sequence_probability"]),
        row("sequence_probability, not normalised = exp(sequence_logprob)",
            np.exp(ours["sequence_logprob"]), plain["sequence_probability"]),
        row("probability_margin = mean_margin", ours["mean_margin"], top["probability_margin"]),
        row(f"mean_token_negentropy and 1 − mean_top_k_entropy / ln {k}",
            1 - ours["mean_top_k_entropy"] / np.log(k), top["mean_token_negentropy"],
            "theirs divides the K probabilities by their sum before the entropy, as if nothing lay outside; "
            "ours does not renormalise"),
        row(f"min_token_negentropy and 1 − max_top_k_entropy / ln {k}",
            1 - ours["max_top_k_entropy"] / np.log(k), top["min_token_negentropy"], "as the row above"),
        row("discrete semantic entropy", ours["discrete_semantic_entropy_10"], entropies["discrete"]),
        row("token-probability semantic entropy, length-normalised = semantic_entropy",
            ours["semantic_entropy_10"], entropies["normalised"]),
        row("the same, not normalised = semantic_entropy_unnormalized",
            ours["semantic_entropy_unnormalized_10"], entropies["whole"]),
        row("monte_carlo_probability and exp(−normalized_predictive_entropy)",
            np.exp(-ours["normalized_predictive_entropy_10"]), monte_carlo,
            "theirs is the arithmetic mean of the samples' length-normalised probabilities, ours the "
            "geometric one"),
    ]  # fmt: skip


def artefactual(traces: dict[str, Array], ours: dict[str, Array]) -> list[dict[str, Any]]:
    from artefactual.preprocessing.parser import LogProbParser
    from artefactual.scoring import EntropyTransformer

    tops = parts(traces["top_logprobs"], traces["lengths"])
    k = traces["top_logprobs"].shape[1]
    responses = [_completion(top) for top in tops]
    parsed = LogProbParser(k=k).transform(responses)
    epr = EntropyTransformer("epr").transform(parsed)[:, 0]
    of_tokens = EntropyTransformer("epr").transform_tokens(parsed)[:, :, 0]
    weighted = EntropyTransformer("wepr").transform(parsed)
    return [
        row("EPR = mean_top_k_entropy", ours["mean_top_k_entropy"], epr),
        row("largest token EPR = max_top_k_entropy", ours["max_top_k_entropy"], np.nanmax(of_tokens, axis=1)),
        row("WEPR's mean features, added up = mean_top_k_entropy",
            ours["mean_top_k_entropy"], weighted[:, :k].sum(axis=1)),
        row("WEPR's largest features, added up, and max_top_k_entropy",
            ours["max_top_k_entropy"], weighted[:, k:].sum(axis=1),
            "theirs takes the largest contribution of each rank over the tokens, so that ranks of different "
            "tokens come together; ours takes one token's sum"),
    ]  # fmt: skip


def _completion(top: Array) -> dict[str, Any]:
    """Return an answer as a server sends it; the parser refuses what rounding has left above 0."""
    ranked = [[{"token": "x", "logprob": float(min(one, 0.0))} for one in token] for token in top]
    content = [{"token": "x", "logprob": token[0]["logprob"], "top_logprobs": token} for token in ranked]
    message = {"role": "assistant", "content": ""}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": {"content": content}}
    return {
        "id": "r",
        "object": "chat.completion",
        "created": 0,
        "model": "reference",
        "choices": [choice],
    }


PEERS: Final[dict[str, tuple[str, Callable[..., list[dict[str, Any]]]]]] = {
    "lm-polygraph": ("lm_polygraph", lm_polygraph),
    "uqlm": ("uqlm", uqlm),
    "artefactual": ("artefactual", artefactual),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("traces", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/peers_formulas.json")
    arguments = parser.parse_args()
    with np.load(arguments.traces, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    ours = {name[5:]: column for name, column in arrays.items() if name.startswith("ours.")}
    report: dict[str, Any] = {"benchmark": "peers_formulas", "tolerance": TOLERANCE, "peers": {}}
    if arguments.out.exists():
        report = json.loads(arguments.out.read_text(encoding="utf-8"))
    found = [name for name in PEERS if _installed(name)]
    if not found:
        sys.exit("none of the peers is installed here: " + ", ".join(PEERS))
    for name in found:
        print(name)
        report["peers"][name] = {
            "version": importlib.metadata.version(name),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "answers": len(arrays["lengths"]),
            "rows": PEERS[name][1](arrays, ours),
        }
    arguments.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
