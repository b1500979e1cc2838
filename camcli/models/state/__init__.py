"""A model in use: left as it was found, one call at a time, known again by its weights."""

from camcli.models.state.forward_patching import (
    StandIn,
    has_patched_forward,
    is_hooked,
    patch_forward,
    switch_off,
)
from camcli.models.state.model_cache import ModelCache
from camcli.models.state.model_lock import (
    NestedCall,
    call_on_model,
    in_this_thread,
    lock_loading,
    lock_model,
    lock_to_restore,
    locks_model,
)
from camcli.models.state.model_state import (
    check_hookable,
    has_classifier,
    is_sharded,
    keep_random_state,
    make_recordable,
    preserve_state,
    seed_random_state,
    set_stance,
    unwrap,
)
from camcli.models.state.module_list import ModelParts, list_modules, list_parts, note_once
from camcli.models.state.randomization import find_weighted_layers, randomize_layers
from camcli.models.state.weights_hash import hash_weights

__all__ = [
    "ModelCache",
    "ModelParts",
    "NestedCall",
    "StandIn",
    "call_on_model",
    "check_hookable",
    "find_weighted_layers",
    "has_classifier",
    "has_patched_forward",
    "hash_weights",
    "in_this_thread",
    "is_hooked",
    "is_sharded",
    "keep_random_state",
    "list_modules",
    "list_parts",
    "lock_loading",
    "lock_model",
    "lock_to_restore",
    "locks_model",
    "make_recordable",
    "note_once",
    "patch_forward",
    "preserve_state",
    "randomize_layers",
    "seed_random_state",
    "set_stance",
    "switch_off",
    "unwrap",
]
