"""Self-critical sequence training (Rennie et al. 2017): captions are drawn and rewarded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from capscope.decoding.ended_beam import ended_beam_search
from capscope.decoding.hypothesis import searching
from capscope.decoding.sampling import Choose, argmax, drawn, roll_out
from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models.captioner import Captioner
from capscope.models.layers.recurrent import over_steps
from capscope.training.batches import Rows, image_of_row
from capscope.training.objectives import caption_log_probs, counted_words, self_critical_loss
from capscope.training.rewards import CaptionReward
from capscope.training.stages.stage import Corpus, Outcome, Stage


class SelfCritical(Stage):
    """Draws ``samples`` captions of each image, and makes those above the baseline likelier.

    Without ``dropout`` (the default) captions are drawn from the captioner as it will speak, and
    one teacher-forced pass gives their log-probabilities: the gradient is that of the expected
    reward. With it (published), dropout is on while captions are drawn, and gradient flows back
    through the very steps that drew them.

    With ``draw: beam`` the captions are the best of a beam of ``samples`` (Cornia et al. 2020), and
    dropout, if any, is on in the teacher-forced pass alone.
    """

    unit = "image"

    def __init__(self, captioner: Captioner, corpus: Corpus, settings: Mapping[str, Any]) -> None:
        super().__init__(captioner, corpus, settings)
        if settings["baseline"] == "others" and settings["samples"] < 2:
            raise CapscopeError(
                "the baseline `others` is the mean reward of an image's other samples: it needs "
                f"samples: 2 or more, not {settings['samples']} (or baseline: greedy)"
            )
        captions, vocabulary = corpus.captions, corpus.vocabulary
        ids = image_of_row(captions)[corpus.rows]
        first = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
        self.images, rows = ids[first], np.split(corpus.rows, first[1:])
        lengths = captions.lengths
        self.reward = CaptionReward(
            [[captions.labels[row, : lengths[row]].tolist() for row in image] for image in rows],
            start=corpus.first_word,
            end=vocabulary.end,
            **{
                key: settings[key]
                for key in ("cider_weight", "bleu_weight", "frequencies", "end_token")
            },
        )
        self.steps = captions.labels.shape[1] + 1
        unsaid = vocabulary.special_ids - {vocabulary.end}
        self.forbidden = () if settings["special_words"] else tuple(sorted(unsaid))
        self.policy = self.make_policy()

    def make_policy(self) -> Captioner:
        """Return the captioner that captions are drawn from, with the parameters trained."""
        return self.captioner

    @property
    def signature(self) -> dict[str, Any]:
        """Return the settings, the reward's name and how many images frequencies are of."""
        return {"reward": "CIDEr-D", **super().signature, "training_images": len(self.images)}

    def batches(self, batch_size: int, *, seed: int, epoch: int) -> list[Rows]:
        """Return places of images."""
        order = np.random.default_rng([seed, epoch]).permutation(len(self.images))
        return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]

    def parts(self, batch: Rows, count: int) -> list[Rows]:
        """Divide the images of a batch, unless a reward depends on the others in it."""
        if count > 1 and self.settings["frequencies"] == "batch":
            raise CapscopeError(
                "frequencies: batch takes the document frequencies of a whole batch: set "
                "frequencies: training, or training.processes and training.accumulate to 1"
            )
        return super().parts(batch, count)

    def step(self, batch: Rows) -> Outcome:
        """Return the policy-gradient loss of captions of some images."""
        features, samples = self.corpus.store.read(self.images[batch]), self.settings["samples"]
        word_ids, log_probs = self._draw(features, samples)
        scores = self._score(word_ids, batch)
        words = word_ids.flatten(0, 1)
        measures = {
            "reward": float(scores.mean()),
            "length": float((words != 0).sum()) / len(words),
        }
        if self.settings["baseline"] == "greedy":
            with searching(self.captioner):
                spoken, _ = self._say(self.captioner, features, argmax, 1)
            baseline = self._score(spoken, batch)
            measures["baseline"] = float(baseline.mean())
        elif self.settings["baseline"] == "mean":
            baseline = scores.mean(1, keepdim=True)
        else:
            baseline = (scores.sum(1, keepdim=True) - scores) / (samples - 1)
        per = self.settings.get("per", "word")
        loss = self_critical_loss(
            log_probs,
            words,
            (scores - baseline).flatten(),
            end=self.corpus.vocabulary.end,
            per=per,
        )
        counted = counted_words(words, end=self.corpus.vocabulary.end, per=per)
        return Outcome(loss, len(words), measures, int(counted.sum()))

    def _draw(self, features: Features, samples: int) -> tuple[Tensor, Tensor]:
        """Draw captions: ids (B, K, T), and log-probabilities (B K, T) with gradient."""
        beam = self.settings.get("draw", "samples") == "beam"
        if self.settings["dropout"] and not beam:
            with over_steps(self.policy):
                word_ids, log_probs = self._say(self.policy, features, drawn(), samples)
            return word_ids, log_probs.flatten(0, 1)
        if beam:
            word_ids = self._best(features, samples)
        else:
            with searching(self.policy):
                word_ids, _ = self._say(self.policy, features, drawn(), samples)
        if not self.policy.folds:
            features = features.select(torch.arange(len(word_ids)).repeat_interleave(samples))
        training = self.policy.training
        log_probs = caption_log_probs(
            self.policy.train(self.settings["dropout"]),
            features,
            word_ids.flatten(0, 1),
            start=self.corpus.first_word,
            end=self.corpus.vocabulary.end,
            forbidden=self.forbidden,
        )
        self.policy.train(training)
        return word_ids, log_probs

    def _best(self, features: Features, samples: int) -> Tensor:
        """Return the captions (B, K, T) of a beam."""
        return ended_beam_search(
            self.policy,
            features,
            start=self.corpus.first_word,
            end=self.corpus.vocabulary.end,
            beam=samples,
            steps=self.steps,
            forbidden=self.forbidden,
        ).word_ids

    def _say(
        self, captioner: Captioner, features: Features, choose: Choose, rows: int
    ) -> tuple[Tensor, Tensor]:
        rollout = roll_out(
            captioner,
            captioner.encode(features),
            choose,
            start=self.corpus.first_word,
            end=self.corpus.vocabulary.end,
            steps=self.steps,
            rows=rows,
            forbidden=self.forbidden,
        )
        return rollout.word_ids, rollout.log_probs

    def _score(self, word_ids: Tensor, batch: Rows) -> Tensor:
        """Return the scores (B, K) of captions (B, K, T)."""
        images, rows, _ = word_ids.shape
        captions = word_ids.flatten(0, 1).tolist()
        scores = self.reward.score(captions, np.repeat(batch, rows).tolist())
        return torch.from_numpy(scores).view(images, rows)
