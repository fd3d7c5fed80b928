"""What all that is read from pretrained encoders has in common: a model and its tokens."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastinn.embed.corpus import Corpus, Cursor, Document
from fastinn.embed.levels import BY_DOCUMENT
from fastinn.embed.model import Model
from fastinn.embed.reading import TOKENS_PER_BLOCK, Position, text_blocks
from fastinn.embed.tokens import Tokens, Window


@dataclass(frozen=True)
class Encoded:
    """Rows in reading order.

    Attributes:
        rows: For each layer the states, shape ``(n, d)``, float32, without those of special tokens
            and padding; for each layer and head of an :class:`AttentionEncoder` its probabilities.
        keys: What each row is, shape ``(n, 3)``, int64: document, position in it and token id; for
            words document, index of the word and a hash of what it says; for whole documents the
            document and two zeros.
    """

    rows: dict[Any, Tensor]
    keys: Tensor


class Source(ABC):
    """A pretrained encoder that is read; its weights are loaded when they are first needed.

    Attributes:
        source: Hub id or local folder.
        level: What a row is.
        layers: What is read, in order.
        model: The model.
        tokens: Its tokenizer and window length.
    """

    level: str
    layers: Sequence[Any]

    def __init__(
        self,
        model: str,
        *,
        max_length: int | None,
        device: str | torch.device | None,
        dtype: torch.dtype,
        revision: str | None,
    ) -> None:
        self.source = str(model)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = dtype
        self.model = Model(self.source, revision, self.device, dtype)
        longest = self.model.longest_window
        self.tokens = Tokens(
            self.source,
            max_length=min(max_length or longest, longest),
            revision=self.model.commit or revision,
            words=self.level == "word",
        )

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Width of a row."""

    @property
    def n_layers(self) -> int:
        """Number of Transformer layers of the model."""
        return self.model.n_layers

    @property
    def revision(self) -> str | None:
        """Commit that was loaded from the hub; ``None`` for a local folder."""
        return self.model.commit

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one row of all layers that are read."""
        return 4 * self.n_features * len(self.layers)

    @property
    def tokens_fingerprint(self) -> str:
        """Hash of tokenizer and window length; seeds that share it pair token by token."""
        return self.tokens.fingerprint()

    def fingerprint(self) -> str:
        """Hash of the weights, 32 hexadecimal digits."""
        return self.model.fingerprint()

    def release(self) -> None:
        """Let go of the weights until they are needed again."""
        self.model.release()

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encode ``texts``, a document each.

        Raises:
            ValueError: If there is no token in them.
        """
        if isinstance(texts, str):
            raise TypeError("texts is one string; give a list of texts, a document each")
        documents = [Document(i, text, text, Cursor(i + 1)) for i, text in enumerate(texts)]
        windows = list(self.tokens.windows(documents))
        if not windows:
            raise ValueError(f"no token in {len(texts)} texts; give texts with words in them")
        return self.encode_windows(windows)

    def stream(self, corpus: Corpus, tokens_per_block: int = TOKENS_PER_BLOCK) -> Iterator[Encoded]:
        """Encode ``corpus`` in blocks of ``tokens_per_block`` tokens or a window more.

        At levels other than tokens, or a document more.
        """
        whole = self.level in BY_DOCUMENT
        for text in text_blocks([self.tokens], corpus, Position(), tokens_per_block, whole=whole):
            yield self.encode_windows(*text.windows[0])

    @abstractmethod
    def encode_windows(self, *portions: Sequence[Window]) -> Encoded:
        """Encode token windows made by a tokenizer equal to the model's own.

        At levels other than ``"token"`` all windows of a document have to be there.

        Args:
            *portions: Windows in reading order. Where rounding must not depend on what else is
                encoded, only those of one portion share batches.
        """
