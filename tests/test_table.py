"""Every public algorithm and the tests that prove it: a name without an entry fails, an entry without a test too.

That every optimizer resumes bit for bit is not listed: test_resume.py runs them all.
"""

import ast
import functools
import importlib
import pathlib

from lab.methods import public

import pytest

HERE = pathlib.Path(__file__).parent
ONE = "test_optimizers.py::"
FORMULA = [
    ONE + "test_trajectory",
    ONE + "test_pieces_of_the_gradient_give_the_step_of_the_whole",
    ONE + "test_state_takes_as_many_copies_of_x_as_the_method_says",
]
TWO = "test_by_segment.py::"
SEGMENTED = [
    TWO + "test_trajectory",
    TWO + "test_pieces_of_whole_segments_give_the_step_of_the_whole_and_others_are_refused",
    TWO + "test_state_bytes_for_each_parameter",
]
AROUND = [
    *FORMULA,
    ONE + "test_lookahead_ema_and_swa_report_their_own_point",
    TWO + "test_averages_are_measured_with_statistics_of_their_own",
]
SCALED = [
    "test_loss_scaled.py::" + test
    for test in (
        "test_the_scale_is_that_of_a_slow_loop",
        "test_after_so_many_good_steps_it_doubles_once",
        "test_a_skipped_step_moves_nothing",
        "test_the_gradient_is_that_of_float32_to_a_thousandth",
        "test_in_float32_a_scale_changes_no_bit_and_clipping_comes_after",
        "test_it_finds_its_scale_and_resumes_bit_for_bit",
    )
]
LAYER = [
    "nn/test_layers.py::test_gradients_of_inputs_and_parameters",
    "nn/test_layers.py::test_layers_never_touch_the_host",
    "nn/test_layers.py::test_backward_twice_writes_the_same_gradient",
]
RECURRENT = [
    *LAYER,
    *(
        "nn/test_recurrent.py::" + test
        for test in (
            "test_values_are_the_equations_unit_by_unit",
            "test_gradients_of_the_first_state_and_through_the_last",
            "test_windows_in_order_give_the_outputs_of_the_whole_text",
        )
    ),
]
GATES = "nn/test_gates.py::test_activations_and_gates"
TRANSFORMER = "nn/test_transformer.py::"
ADDED = TRANSFORMER + "test_positions_that_are_added"
ATTENTION = [
    "nn/test_attention.py::" + test
    for test in (
        "test_values_are_the_equations_pair_by_pair",
        "test_gradients_with_keys_that_are_left_out",
        "test_layers_with_masks_never_touch_the_host",
        "test_both_forms_and_the_compiled_one_agree",
        "test_cross_attention",
        "test_what_may_not_be_seen_changes_nothing",
    )
]
ADAPTERS = "nn/test_adapters.py::"
FUSED = ["nn/test_passes.py::test_fused_layers_are_chosen_printed_and_equal_to_their_parts"]
LOSS = [
    "nn/test_losses.py::test_gradient_is_the_derivative_of_the_weighted_mean",
    "nn/test_losses.py::test_losses_never_touch_the_host",
]
CLIPS = "test_clipping.py::"
CLIPPING = [
    CLIPS + "test_trajectories_of_sgd_on_clipped_gradients",
    CLIPS + "test_zeros_stay_zero_and_what_is_not_a_number_stays_so",
]
MEAN = ["test_estimators.py::test_minibatch_and_unequal_micro_batches_give_the_mean_of_the_weighted_row_gradients"]
ORDER = [
    "test_samplers.py::test_batches_are_slices_of_the_epochs_order",
    "test_samplers.py::test_an_order_is_a_function_of_seed_and_epoch",
]

TRAINED = [
    "test_adversarial.py::" + test
    for test in (
        "test_nothing_changes_bit_for_bit_where_nothing_is_added",
        "test_batch_statistics_are_updated_once_a_step_by_the_pass_that_trains",
        "test_elsewhere_the_inputs_stay_those_of_the_step",
        "test_two_parts_equal_the_whole_bitwise",
        "test_adversarial_steps_where_nothing_may_be_read",
    )
]
ATTACK = [
    "problems/test_attacks.py::" + test
    for test in (
        "test_an_attack_changes_nothing_and_is_a_function_of_seed_and_row",
        "test_eps_of_zero_leaves_the_clean_answers",
        "test_attacks_run_where_nothing_may_be_read",
    )
]
LOGITS = [
    "problems/test_attacks.py::" + test
    for test in (
        "test_losses_and_their_gradients_by_pixels_are_those_written_out",
        "test_gradients_of_five_pixels_by_differences_in_evaluation_mode",
        "test_a_ratio_of_logits_changes_neither_with_shift_nor_with_scale",
    )
]
REDUCED = [
    "test_variance_reduced.py::" + test
    for test in (
        "test_trajectories",
        "test_estimates_are_unbiased_by_enumeration",
        "test_linear_convergence_to_the_minimum",
        "test_variance_is_that_of_the_enumerated_estimates",
        "test_two_halves_equal_the_whole_bitwise",
        "test_where_nothing_may_be_read",
    )
] + ["problems/test_stretches.py::test_compiled_steps_are_those_of_the_loop"]
SHARP = [
    "test_sam.py::" + test
    for test in (
        "test_trajectories_with_momentum_on_weighted_batches",
        "test_micro_batches_outside_give_every_m_rows_their_own_ball",
        "test_the_shift_lies_on_the_ball_and_no_other_raises_a_linear_function_more",
        "test_a_radius_of_zero_changes_nothing_bit_for_bit",
        "test_batch_statistics_are_updated_once_a_step_by_the_pass_at_x",
        "test_two_parts_equal_the_whole_bitwise",
        "test_steps_where_nothing_may_be_read",
    )
]
ZO = "test_zeroth_order.py::"
ZEROTH = [
    ZO + "test_on_a_device_that_lets_nothing_be_read_runs_are_those_of_the_cpu",
    ZO + "test_a_run_that_is_broken_goes_on_bit_for_bit",
]
SMOOTH = [
    ZO + "test_estimates_are_those_of_a_slow_loop_and_values_are_counted",
    ZO + "test_on_quadratics_the_mean_is_the_gradient_and_second_moments_are_the_closed_forms",
]
FAR, RATE = "distributed/test_algorithms.py::", "distributed/test_rates.py::"
SENT = "distributed/test_engine.py::"
NODES = [FAR + "test_trajectory", FAR + "test_in_single_precision", FAR + "test_bytes_of_a_round"]
SHARDS = "distributed/test_shards.py::"
PIPES = [
    "distributed/test_pipelines.py::" + test
    for test in (
        "test_steps_are_those_of_the_whole_network",
        "test_the_bubble",
        "test_gpipe_keeps_all_passes_and_1f1b_no_more_than_there_are_stages_behind",
    )
]
PROMISES = [
    "distributed/test_compressors.py::" + test
    for test in (
        "test_values_are_the_definitions",
        "test_promises",
        "test_zeros_stay_zero_and_a_message_is_all_that_is_needed",
    )
]
FENCHEL = [
    "problems/test_linear_losses.py::" + test
    for test in (
        "test_values_are_the_definition_and_slopes_their_derivatives",
        "test_conjugates_by_fenchels_inequality_and_by_a_maximum",
        "test_curvature_bounds_the_slopes_and_is_attained",
        "test_the_duality_gap_bounds_the_distance_and_closes_at_the_minimum",
    )
]
UNROLLED = [
    "problems/test_unrolled.py::" + test
    for test in (
        "test_outputs_are_those_of_a_slow_loop",
        "test_gradients_of_variables_and_of_b",
        "test_both_ways_of_the_passes_agree",
        "test_training_where_nothing_may_be_read",
    )
]
RELORA = "problems/test_merging.py::"
SUB = "test_subspace.py::"
SUBSPACE = [SUB + "test_trajectory", SUB + "test_bytes_are_those_of_the_formulas"]
PENALTY = ["test_penalties.py::test_three_point_inequality", "test_penalties.py::test_closed_forms_at_step_two"]
BLOCKS = [
    "test_blocks.py::test_badam_is_the_loop_of_the_paper",
    "test_blocks.py::test_lisa_is_the_loop_of_the_paper",
    "test_blocks.py::test_states_that_are_kept_go_on_where_they_were",
    "test_blocks.py::test_a_run_that_is_cut_anywhere_resumes_bitwise",
]

TABLE = {
    "npopt.optimizers": {
        "Anderson": [
            "test_anderson.py::test_accepted_iterates_are_those_of_the_paper",
            "test_anderson.py::test_a_quadratic_ends_after_as_many_steps_as_there_are_eigenvalues",
            "test_anderson.py::test_every_accepted_point_descends",
        ],
        "FISTA": [
            "test_full_batch.py::test_fista_trajectory",
            "test_full_batch.py::test_the_bounds_of_beck_and_teboulle",
        ],
        "ISTA": [
            "test_full_batch.py::test_ista_trajectory_and_it_is_proximal_sgd_without_backtracking",
            "test_full_batch.py::test_the_bounds_of_beck_and_teboulle",
        ],
        "Proximal": [
            "test_penalties.py::test_proximal_sgd_is_the_step_of_the_definition",
            "test_penalties.py::test_prox_rr_is_the_algorithm_of_mishchenko_khaled_and_richtarik",
            "test_variance_reduced.py::test_trajectories",
        ],
        "SGD": FORMULA,
        "HeavyBall": [
            *FORMULA,
            ONE + "test_equal_gradients_move_heavy_ball_by_lr_over_one_minus_beta",
            ONE + "test_the_forms_of_heavy_ball_are_one_under_its_maps",
        ],
        "Nesterov": [*FORMULA, ONE + "test_nesterov_is_the_method_of_sutskever_et_al_at_another_point"],
        "Adam": [*FORMULA, ONE + "test_first_steps"],
        "AdamW": [*FORMULA, ONE + "test_decay_shrinks_x_at_zero_gradient_and_only_where_it_is_asked_for"],
        "AdaGrad": [*FORMULA, ONE + "test_first_steps"],
        "RMSProp": [*FORMULA, ONE + "test_first_steps"],
        "Adadelta": [*FORMULA, ONE + "test_adadelta_starts_by_its_eps"],
        "AMSGrad": [
            *FORMULA,
            ONE + "test_the_memory_of_adam_and_of_amsgrad_after_a_spike",
            ONE + "test_adam_goes_the_wrong_way_on_the_example_of_reddi_and_amsgrad_does_not",
        ],
        "NAdam": FORMULA,
        "RAdam": [*FORMULA, ONE + "test_the_first_rectified_step_of_radam_and_its_factors"],
        "AdaBound": [*FORMULA, ONE + "test_the_bounds_of_adabound_close_on_the_final_rate"],
        "AMSBound": FORMULA,
        "Adamax": [
            *FORMULA,
            ONE + "test_first_steps",
            ONE + "test_adamax_without_eps_stays_where_there_never_was_a_gradient",
        ],
        "Rprop": [*FORMULA, ONE + "test_the_steps_of_rprop_keep_to_their_bounds_and_gradients_that_underflow_count"],
        "ASGD": [*FORMULA, ONE + "test_asgd_answers_with_the_mean_of_its_iterates_from_a_step_on"],
        "Lion": [*FORMULA, ONE + "test_first_steps"],
        "SWATS": [*FORMULA, ONE + "test_swats_switches_on_a_quadratic_and_then_is_sgd"],
        "MixedClipping": [*FORMULA, CLIPS + "test_mixed_clipping_at_its_ends_is_clipped_sgd_and_momentum_clipping"],
        "NormalisedMomentum": [*FORMULA, CLIPS + "test_steps_of_normalised_momentum_have_the_length_of_the_rate"],
        "Blockwise": [*BLOCKS, "test_blocks.py::test_states_are_those_of_the_blocks_at_hand"],
        "Lookahead": AROUND,
        "EMA": AROUND,
        "SWA": AROUND,
        "Rounded": [
            *FORMULA,
            ONE + "test_weights_without_masters_stand_still_unless_they_are_rounded_at_random",
        ],
        "LARS": [*SEGMENTED, TWO + "test_a_trust_ratio_of_one_where_a_norm_is_zero_and_outside_the_kinds"],
        "LAMB": [*SEGMENTED, TWO + "test_a_trust_ratio_of_one_where_a_norm_is_zero_and_outside_the_kinds"],
        "AdamMini": [
            *SEGMENTED,
            TWO + "test_adam_mini_with_blocks_of_one_number_is_adamw",
            TWO + "test_adam_mini_has_a_second_moment_for_each_head_of_queries_and_keys",
        ],
        "Adafactor": [
            *SEGMENTED,
            TWO + "test_adafactor_is_exact_for_squares_of_rank_one",
            TWO + "test_the_first_moment_of_adafactor_is_not_corrected_and_cannot_appear_in_mid_run",
        ],
        "Muon": [
            *SEGMENTED,
            TWO + "test_muon_without_matrices_is_adamw",
            TWO + "test_the_singular_values_of_muons_update_are_near_one_and_its_scale_is_the_one_that_was_named",
        ],
        "Quantised": [
            "test_quantised.py::" + test
            for test in (
                "test_adamw_is_the_loop_of_the_paper",
                "test_every_method_goes_on_from_what_its_codes_stand_for",
                "test_bytes_of_state_are_those_that_are_there",
                "test_a_state_is_saved_and_goes_on_bit_for_bit",
                "test_pieces_of_whole_segments_give_the_step_of_the_whole",
            )
        ],
        "GaLore": [
            *SUBSPACE,
            SUB + "test_in_all_directions_of_a_fixed_basis_galore_is_adam_in_rotated_coordinates",
            SUB + "test_without_matrices_it_is_adamw_and_a_zero_gradient_shrinks_x",
            SUB + "test_lookahead_restarts_it_and_draws_do_not_come_twice",
            SUB + "test_the_update_of_a_period_has_the_rank_that_was_asked_for",
        ],
        "GoLore": SUBSPACE,
        "ReLoRA": [
            RELORA + "test_a_run_is_the_loop_written_out",
            RELORA + "test_two_halves_of_a_run_that_merges_are_the_whole",
            RELORA + "test_moments_are_thinned_by_magnitude_or_at_random",
            RELORA + "test_training_with_restarts_where_nothing_may_be_read",
        ],
        "Flora": [*SUBSPACE, SUB + "test_flora_is_right_on_average_and_sums_gradients_in_the_subspace"],
        "SophiaH": [
            TWO + "test_sophia_h_trajectory",
            TWO + "test_hutchinsons_estimate_has_the_diagonal_as_its_mean",
            TWO + "test_sophia_trains_resumes_and_counts_its_gradients",
            TWO + "test_state_bytes_for_each_parameter",
        ],
        "SophiaG": [
            TWO + "test_sophia_g_trajectory",
            TWO + "test_sophia_g_on_a_device",
            TWO + "test_sophia_g_is_the_gauss_newton_diagonal_on_average",
            TWO + "test_sophia_trains_resumes_and_counts_its_gradients",
            TWO + "test_state_bytes_for_each_parameter",
        ],
    },
    "npopt.estimators": {
        "Layerwise": [
            "test_blocks.py::test_steps_in_pieces_are_those_of_the_whole_gradient_to_the_bit",
            "test_blocks.py::test_pieces_come_from_the_top_and_one_layers_live_at_a_time",
        ],
        "BlockGradient": [
            *BLOCKS,
            "test_blocks.py::test_orders_of_blocks",
            "test_blocks.py::test_the_largest_blocks_and_those_of_importance",
        ],
        "Minibatch": MEAN,
        "Accumulated": MEAN,
        "ClippedByValue": CLIPPING,
        "ClippedBySegment": [*CLIPPING, CLIPS + "test_segments_are_clipped_by_themselves_and_the_whole_is_not"],
        "Normalised": [*CLIPPING, CLIPS + "test_normalised_and_clipped_steps_differ_by_at_most_a_factor_of_two"],
        "Clipped": [
            *CLIPPING,
            CLIPS + "test_clipping_comes_after_unscaling",
            "test_estimators.py::test_clipping_shortens_to_the_bound_and_leaves_short_gradients_alone",
        ],
        "LossScaled": SCALED,
        "Adversarial": [*TRAINED, "test_adversarial.py::test_adversarial_training_is_the_loop_written_out"],
        "FreeAdversarial": [
            *TRAINED,
            "test_adversarial.py::test_free_training_is_the_loop_written_out_and_its_perturbation_persists",
        ],
        "TRADES": [
            *TRAINED,
            "test_adversarial.py::test_trades_climbs_the_divergence_and_adds_it",
            "test_adversarial.py::test_the_gradient_of_trades_through_batch_norm_and_dropout_by_differences",
        ],
        "SAM": [*SHARP, "test_sam.py::test_sam_circles_a_quadratic_at_the_amplitude_of_theory"],
        "ASAM": [
            *SHARP,
            "test_sam.py::test_without_eta_adaptive_sharpness_is_that_of_all_scalings_of_the_layers_and_sams_is_not",
        ],
        "SVRG": REDUCED,
        "SAGA": REDUCED,
        **{name: [*ZEROTH, *SMOOTH] for name in ("GaussianSmoothing", "SphereSmoothing", "SPSA")},
        "CoordinateDifferences": [*ZEROTH, ZO + "test_coordinate_differences_of_a_slow_loop"],
        "ZOSVRG": [*ZEROTH, ZO + "test_zo_svrg_is_the_loop_of_the_paper"],
        "MeZO": [
            *ZEROTH,
            *SMOOTH,
            "test_mezo.py::test_mezo_is_zo_sgd_and_zo_adam_with_the_same_directions",
            "test_mezo.py::test_projected_gradients_are_the_backward_passs_along_z",
            "test_mezo.py::test_a_run_is_its_seed_and_its_projected_gradients",
        ],
        "MeZOSVRG": [*ZEROTH, "test_mezo.py::test_mezo_svrg_is_the_loop_of_the_paper"],
        "LOZO": [
            *ZEROTH,
            "test_mezo.py::test_lozo_is_the_loop_of_the_paper",
            "test_mezo.py::test_the_mean_of_lozo_is_the_gradient_or_r_times_the_gradient",
        ],
        "DeepZero": [
            *ZEROTH,
            "test_mezo.py::test_deepzero_with_all_coordinates_is_the_gradient_of_differences",
            "test_mezo.py::test_deepzero_keeps_what_zo_grasp_says_and_draws_within_segments_anew",
        ],
    },
    "npopt.codes": {
        "Code": [
            "test_codes.py::" + test
            for test in (
                "test_the_dynamic_map_is_the_published_one",
                "test_linear_maps_have_equal_steps",
                "test_two_tables_find_the_code_that_a_search_among_the_bounds_finds",
                "test_every_code_comes_back",
            )
        ],
        "Coded": [
            "test_codes.py::" + test
            for test in (
                "test_arrays_are_kept_by_the_definition",
                "test_the_error_of_a_round_trip_is_at_most_half_the_widest_step",
                "test_drawn_codes_are_neighbours_and_right_on_average",
                "test_a_formula_over_codes_is_decoding_the_formula_and_encoding",
            )
        ],
    },
    "npopt.projectors": {
        "Svd": [
            SUB + "test_bases_are_orthonormal",
            SUB + "test_svd_spans_the_leading_singular_vectors_and_fixes_their_signs",
        ],
        "RangeFinder": [
            SUB + "test_bases_are_orthonormal",
            SUB + "test_the_range_finder_loses_hardly_more_than_the_best_subspace",
        ],
        "Stiefel": [
            SUB + "test_bases_are_orthonormal",
            SUB + "test_random_bases_have_the_means_that_they_promise",
        ],
        "Gaussian": [SUB + "test_random_bases_have_the_means_that_they_promise"],
        "Switching": [SUB + "test_trajectory"],
    },
    "npopt.penalties": {name: PENALTY for name in ("L1", "L2", "L1L2", "Box", "Simplex")},
    "npopt.samplers": {
        "WithReplacement": [*ORDER, "test_samplers.py::test_with_replacement_is_uniform"],
        "ShuffleOnce": [*ORDER, "test_samplers.py::test_shuffle_once_repeats_its_batches_and_reshuffling_does_not"],
        "RandomReshuffling": [*ORDER, "test_samplers.py::test_without_replacement_every_row_comes_once_an_epoch"],
        "Sequential": ["test_samplers.py::test_parallel_streams_go_through_the_rows_in_order"],
        "Importance": [
            *ORDER,
            "test_samplers.py::test_rows_come_as_often_as_the_probabilities_say",
            "test_samplers.py::test_weights_keep_the_gradient_unbiased_and_the_variance_is_the_identity",
        ],
        "AdaptiveImportance": [
            "test_samplers.py::test_adaptive_draws_follow_the_probabilities_of_the_moment",
            "test_samplers.py::test_adaptive_first_pass_sets_the_norms_and_later_ones_smooth_them",
            "test_samplers.py::test_adaptive_runs_resume_bitwise_and_lower_the_variance",
        ],
        "Replay": [
            "test_adversarial.py::test_replayed_batches_come_in_a_row_and_a_saved_sampler_goes_on",
            "test_adversarial.py::test_a_replay_of_one_is_the_sampler_itself",
        ],
        "ByClass": [*ORDER, "test_samplers.py::test_classes_come_in_order_and_are_reshuffled_within"],
    },
    "npopt.schedules": {
        name: ["test_schedules.py::test_table"]
        for name in (
            "Constant",
            "Exponential",
            "Piecewise",
            "Polynomial",
            "Linear",
            "Cosine",
            "WithWarmup",
            "InverseSquareRoot",
            "CosineRestarts",
            "JaggedCosine",
            "Cyclical",
            "OneCycle",
        )
    },
    "nn.linear": {"Linear": LAYER},
    "nn.embedding": {
        "Embedding": ["problems/test_tokens.py::test_gradients_through_the_embedding"],
        "StableEmbedding": [
            "problems/test_tokens.py::test_gradients_through_the_embedding",
            "problems/test_tokens.py::test_the_stable_embedding_is_layer_norm_of_what_is_looked_up",
        ],
    },
    "problems.feeds": {
        "Images": ["problems/test_neural.py::"],
        "Table": ["problems/test_neural.py::"],
        "CropFlip": ["problems/test_neural.py::test_moves_cover_all_crops_evenly"],
    },
    "problems.tokens": {name: ["problems/test_tokens.py::"] for name in ("Windows", "Sentences", "Pairs")},
    "problems.encoded": {name: ["problems/test_encoded.py::"] for name in ("Labelled", "Masked")},
    "nn.convolution": {"Conv2d": LAYER},
    "nn.norms": {"BatchNorm": LAYER},
    "nn.fused": {"BatchNormReLU": FUSED, "BatchNormSkip": FUSED},
    "nn.layer_norm": {name: [*LAYER, "nn/test_gates.py::test_norms_of_rows"] for name in ("LayerNorm", "RMSNorm")},
    "nn.activations": {
        **{name: LAYER for name in ("ReLU", "LeakyReLU", "PReLU", "Tanh", "Sigmoid", "Softmax", "LogSoftmax")},
        **{name: [*LAYER, GATES] for name in ("GELU", "SiLU")},
    },
    "nn.adapters": {
        "LoRA": [
            *LAYER,
            ADAPTERS + "test_values_are_those_of_the_changed_weight",
            ADAPTERS + "test_at_the_start_nothing_is_changed_and_one_factor_has_no_gradient",
            ADAPTERS + "test_merging_leaves_the_function_what_it_is",
        ],
        "FLoRA": [
            *LAYER,
            ADAPTERS + "test_values_are_those_of_the_changed_weight",
            ADAPTERS + "test_at_the_start_nothing_is_changed_and_one_factor_has_no_gradient",
        ],
    },
    "nn.tucker": {"FLoRA2d": [*LAYER, ADAPTERS + "test_values_are_those_of_the_changed_weight"]},
    "nn.low_rank": {
        "LowRank": [*LAYER, ADAPTERS + "test_values_are_those_of_the_changed_weight"],
        "SLTrain": [
            *LAYER,
            ADAPTERS + "test_values_are_those_of_the_changed_weight",
            ADAPTERS + "test_the_support_is_spread_evenly_and_never_changes",
            ADAPTERS + "test_sparse_products_are_those_of_the_dense_matrix",
        ],
    },
    "nn.gated": {name: [*LAYER, GATES] for name in ("Gated", "SwiGLU", "GEGLU", "ReGLU")},
    "nn.attention": {"MultiHeadAttention": ATTENTION},
    "nn.positions": {name: [*LAYER, ADDED] for name in ("LearnedPositions", "SinusoidalPositions")},
    "nn.transformer": {
        "EncoderLayer": [*LAYER, TRANSFORMER + "test_gradients_of_encoder_layers"],
        "DecoderLayer": [TRANSFORMER + "test_gradients_of_decoder_layers_and_of_their_memory"],
    },
    "nn.pooling": {name: LAYER for name in ("MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "GlobalAvgPool")},
    "nn.dropout": {
        "Flatten": LAYER,
        "Dropout": LAYER,
        "VariationalDropout": [
            *LAYER,
            "nn/test_recurrent.py::test_variational_dropout_has_one_mask_for_all_times",
        ],
    },
    "nn.recurrent": {name: RECURRENT for name in ("LSTM", "GRU")},
    "nn.losses": {name: LOSS for name in ("SoftmaxCrossEntropy", "SquaredError", "BinaryCrossEntropy", "KLDivergence")},
    "nn.init": {
        "ZeroRow": [TRANSFORMER + "test_a_tied_head_adds_to_the_embedding_and_padding_is_not_trained"],
        **{
            name: ["nn/test_init.py::test_standard_deviation_and_bound"]
            for name in (
                "Normal",
                "Uniform",
                "LeCun",
                "XavierNormal",
                "XavierUniform",
                "KaimingNormal",
                "KaimingUniform",
                "PyTorchDefault",
            )
        },
        "Orthogonal": ["nn/test_init.py::test_orthogonal_rows_or_columns"],
        **{
            name: ["nn/test_init.py::test_the_initialisers_of_the_book"]
            for name in ("ScaledOrthogonal", "LMomentum", "SpectralNormalised")
        },
        **{name: ["nn/test_init.py::test_constants_and_printing"] for name in ("Zeros", "Ones", "Constant")},
    },
    "npopt.distributed": {
        "DataParallel": [*NODES, RATE + "test_these_are_gradient_descent", SENT + "test_a_ring_all_reduce"],
        "LocalSGD": [*NODES, RATE + "test_local_steps_have_a_fixed_point_of_their_own"],
        "FedAvg": [
            *NODES,
            RATE + "test_local_steps_have_a_fixed_point_of_their_own",
            SENT + "test_a_server_with_patience_goes_on_without_the_lost",
        ],
        "Scaffold": [*NODES, RATE + "test_scaffold_ends_at_the_minimum", RATE + "test_the_rate_of_scaffold"],
        "DSGD": [*NODES, RATE + "test_dsgd_stops_at_the_minimum_of_another_function"],
        "GradientTracking": [*NODES, RATE + "test_gradient_tracking_goes_to_the_minimum_also_one_way"],
        "EXTRA": [*NODES, RATE + "test_extra_goes_to_the_minimum_where_dsgd_stops"],
        "EF21": [*NODES, RATE + "test_the_rates_of_ef21"],
        "EF21SGDM": [*NODES, RATE + "test_momentum_quietens_ef21_with_noisy_gradients"],
        "FedVARP": [*NODES, RATE + "test_fedvarp_takes_out_the_variance_of_who_takes_part"],
        "OneBitAdam": [*NODES, RATE + "test_one_bit_adam_goes_on_where_adam_warmed_up"],
        "PowerSGD": [
            FAR + "test_power_sgd_is_the_subspace_iteration_of_the_mean",
            FAR + "test_power_sgd_of_full_rank_is_momentum_and_of_rank_1_still_converges",
        ],
        "CompressedSGD": [*NODES, RATE + "test_what_was_sent_and_the_memory_are_all_gradients"],
        "GPipe": PIPES,
        "PipeDreamFlush": PIPES,
        "TensorParallel": [
            SHARDS + "test_steps_are_those_of_the_whole_network",
            SHARDS + "test_a_layer_needs_two_sums_forward_and_two_back",
        ],
        "ZeRO": [
            SHARDS + "test_zero_takes_the_steps_of_data_parallel_training_bit_for_bit",
            SHARDS + "test_steps_of_zero_are_those_of_a_slow_loop",
            SHARDS + "test_no_state_exists_twice",
        ],
        **{name: PROMISES for name in ("Identity", "TopK", "RandK", "Sign", "QSGD")},
        "Graph": ["distributed/test_graphs.py::test_weights_that_do_not_keep_the_mean_are_refused"],
        "Node": [SENT + "test_no_node_can_reach_another"],
        "Clock": [SENT + "test_a_server_hears_clients_one_by_one"],
        "Faults": [SENT + "test_in_a_gossip_ones_own_x_stands_for_what_is_lost"],
        "History": [SENT + "test_what_is_sent_is_a_copy"],
    },
    "npopt.analysis.curvature": {
        "Spectrum": [
            "analysis/test_curvature.py::test_errors_of_lanczos_are_bounds_and_extremes_come_first",
            "analysis/test_curvature.py::test_quadrature_of_lanczos_is_exact_for_polynomials",
        ],
    },
    "npopt.analysis.products": {
        "Hessian": [
            "analysis/test_curvature.py::test_products_are_those_of_the_logistic_hessian",
            "analysis/test_curvature.py::test_products_of_a_network_are_symmetric_and_fit_differences_of_the_loss",
            "analysis/test_products.py::test_the_uncertainty_of_differences_bounds_their_error",
        ],
        "Nonuniformity": [
            "analysis/test_products.py::test_non_uniformity_is_the_matrix_of_its_definition",
            "analysis/test_products.py::test_the_toy_of_wu_ma_and_e_has_non_uniformity_1_8",
        ],
    },
    "npopt.analysis.eigen": {
        "Pairs": [
            "analysis/test_eigen.py::test_power_iteration_takes_the_largest_magnitudes_one_by_one",
            "analysis/test_eigen.py::test_eigenpairs_of_a_network_are_those_of_its_whole_hessian",
        ],
        "Top": ["analysis/test_eigen.py::test_the_top_of_a_path_of_matrices_is_followed_in_few_products"],
    },
    "npopt.analysis.dynamics": {
        "Dynamics": ["analysis/test_dynamics.py::test_each_number_is_its_definition"],
    },
    "npopt.analysis.densities": {
        "Trace": ["analysis/test_eigen.py::test_hutchinson_is_exact_for_diagonals_and_its_error_bar_is_right"],
        "Density": ["analysis/test_eigen.py::test_the_density_of_a_known_spectrum"],
    },
    "npopt.analysis.gradient_noise": {
        "GradientNoise": ["analysis/test_gradient_noise.py::test_with_single_rows_it_is_their_covariance"],
    },
    "npopt.analysis.sharpness": {
        "Rise": ["analysis/test_sharpness.py::test_at_a_quadratics_minimum_the_rise_is_half_of_lambda_max"],
    },
    "problems.curved": {
        "Linearised": [
            "problems/test_second.py::test_networks_column_by_column",
            "problems/test_second.py::test_gauss_newton_is_the_jacobian_around_the_losses_curvature",
        ],
    },
    "nn.twice": {
        "Twice": [
            "nn/test_twice.py::test_tangents_and_second_derivatives",
            "nn/test_twice.py::test_second_derivatives_where_nothing_may_be_read",
            "nn/test_twice.py::test_products_come_again_and_adjoints_are_adjoint",
        ],
    },
    "npopt.analysis.smoothness": {
        "LocalSmoothness": [
            "analysis/test_smoothness.py::" + test
            for test in (
                "test_on_a_quadratic_it_is_the_length_of_the_product_with_the_direction",
                "test_on_a_wall_it_is_the_chord_of_the_exponential_and_its_supremum_at_the_steeper_end",
                "test_a_slow_loop_finds_no_more_than_the_largest_curvature_on_the_segment",
                "test_noise_of_the_rows_cancels_on_the_same_rows_and_is_divided_by_the_step_on_others",
            )
        ],
        "Relation": ["analysis/test_smoothness.py::test_a_relation_is_that_of_the_logarithms_and_of_the_line"],
    },
    "npopt.analysis.planes": {
        "Plane": [
            "analysis/test_planes.py::test_projections_on_oblique_directions_are_least_squares",
            "analysis/test_planes.py::test_every_filter_of_the_direction_is_as_long_as_that_of_x",
            "analysis/test_planes.py::test_scaled_layers_leave_the_filter_normalised_surface_and_change_the_plain_one",
        ],
        "Projection": ["analysis/test_planes.py::test_a_random_plane_sees_two_of_dim_parts_of_a_random_path"],
    },
    "npopt.analysis.surfaces": {
        "LossSurface": [
            "analysis/test_surfaces.py::" + test
            for test in (
                "test_the_surface_of_a_quadratic_is_the_quadratic",
                "test_running_statistics_are_those_of_the_network_at_every_point",
                "test_statistics_of_the_rows_are_those_of_a_training_pass",
                "test_the_same_where_nothing_may_be_read",
            )
        ],
        "Barrier": ["analysis/test_surfaces.py::test_a_barrier_is_measured_from_the_line_between_the_ends"],
    },
    "npopt.analysis.trajectories": {
        "Components": [
            "analysis/test_trajectories.py::test_components_are_those_of_the_singular_value_decomposition",
            "analysis/test_trajectories.py::test_a_walk_in_many_dimensions_draws_lissajous_curves",
        ],
    },
    "npopt.analysis.wavelets": {
        "Wavelets": [
            "analysis/test_wavelets.py::test_haar_is_that_of_the_blocks",
            "analysis/test_wavelets.py::test_squares_are_kept_and_the_grid_comes_back",
        ],
    },
    "npopt.analysis.persistence": {
        "Diagram": [
            "analysis/test_persistence.py::test_basins_of_noise_are_those_of_a_slow_loop",
            "analysis/test_persistence.py::test_the_life_of_the_shallower_well_is_the_height_of_the_barrier",
            "analysis/test_persistence.py::test_a_torus_has_the_betti_numbers_of_a_torus",
        ],
    },
    "npopt.analysis.fits": {
        "QuadraticFit": ["analysis/test_fits.py::test_a_quadratic_is_found_exactly"],
        "GaussianFit": ["analysis/test_fits.py::test_a_gaussian_well_whose_top_is_seen_is_found_again"],
    },
    "nn.spectra": {"PowerIteration": ["nn/test_init.py::test_power_iteration_finds_the_largest_singular_value"]},
    "nn.decoding.state": {
        name: [
            "nn/test_decoding.py::test_logits_are_those_of_one_pass",
            "nn/test_decoding.py::test_a_state_is_rolled_back_and_branched",
            "nn/test_decoding.py::test_decoders_look_at_a_memory",
        ]
        for name in ("Decoder", "State")
    },
    "nn.decoding.caches": {
        "Full": [
            "nn/test_decoding.py::test_long_texts_outgrow_their_first_memory_and_large_pieces_take_the_compiled_loops",
            "nn/test_decoding.py::test_memory_is_as_much_as_the_docstring_says",
        ]
    },
    "nn.decoding.choosing": {
        "Greedy": ["nn/test_generation.py::test_greedy_texts_are_those_of_whole_passes"],
        "Sample": [
            "nn/test_generation.py::test_distributions_are_the_definitions",
            "nn/test_generation.py::test_texts_are_as_frequent_as_their_probabilities_say",
        ],
    },
    "problems.batched": {
        "Batched": [
            "problems/test_batched.py::test_estimates_are_unbiased_with_batch_norm_and_dropout",
            "problems/test_batched.py::test_svrg_on_batches_takes_the_papers_steps",
        ],
    },
    "problems.parts": {
        "Stage": PIPES[2:],
        "Shard": [SHARDS + "test_layers_that_cannot_be_cut_are_refused"],
    },
    "problems.scored": {"Scored": ["problems/test_scored.py::test_scores_are_the_norms_of_softmax_minus_onehot"]},
    "problems.linear.losses": {name: FENCHEL for name in ("Squared", "Huber", "SquaredHinge", "Logit", "Softmax")},
    "problems.attacks": {
        "FGSM": [
            *ATTACK,
            "problems/test_attacks.py::test_fgsm_is_the_worst_there_is_for_a_linear_model_of_two_classes",
        ],
        "PGD": [*ATTACK, "problems/test_attacks.py::test_pgd_is_the_loop_written_out"],
        "APGD": [*ATTACK, "problems/test_attacks.py::test_apgd_is_algorithm_1_of_croce_and_hein"],
        "Square": [
            *ATTACK,
            "problems/test_attacks.py::test_square_is_the_search_written_out_and_counts_its_queries",
        ],
        "Ensemble": [
            *ATTACK[::2],
            "problems/test_attacks.py::test_a_network_that_hides_its_gradients_is_found_out",
        ],
        "LogitMargin": LOGITS,
        "LogitRatio": LOGITS,
    },
    "problems": {
        "LinearModel": [
            "problems/test_linear.py::",
            "problems/test_linear_losses.py::test_the_minimum_is_that_of_a_slow_loop",
        ],
        "Lasso": ["problems/minima/test_penalised.py::"],
        "ElasticNet": ["problems/minima/test_penalised.py::"],
        "LeastSquares": ["problems/test_linear.py::"],
        "Logistic": ["problems/test_linear.py::"],
        "Surface": ["problems/test_landscapes.py::"],
        "Quadratic": ["problems/test_quadratic.py::"],
        "Steep": ["problems/test_steep.py::"],
        "Neural": ["problems/test_neural.py::"],
    },
    "problems.unrolled": {
        **{name: UNROLLED for name in ("LISTA", "LISTACP", "ALISTA", "Unrolled")},
        "SparseCodes": [
            "problems/test_unrolled.py::test_the_dictionary_and_its_condition",
            "problems/test_unrolled.py::test_samples_are_a_function_of_seed_and_step_and_are_spread_as_said",
        ],
    },
}


@pytest.mark.parametrize("module", TABLE)
def test_every_public_algorithm_has_an_entry(module):
    missing = set(public(module)) - set(TABLE[module])
    gone = set(TABLE[module]) - set(public(module))
    assert not missing, f"{module}: no test is listed for {', '.join(sorted(missing))}"
    assert not gone, f"{module}: listed, but not there: {', '.join(sorted(gone))}"


@functools.cache
def words(path):
    """(functions that a file defines, names that it uses)"""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    used = {n.id for n in nodes if isinstance(n, ast.Name)} | {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    return {n.name for n in nodes if isinstance(n, ast.FunctionDef)}, used


@pytest.mark.parametrize("module", TABLE)
def test_every_entry_names_tests_that_exist_and_mention_it(module):
    for name, tests in TABLE[module].items():
        for test in tests:
            file, function = test.split("::")
            path = HERE / file
            assert path.exists(), f"{name}: no file {file}"
            names, used = words(path)
            assert not function or function in names, f"{name}: {file} has no test {function}"
            assert name in used, f"{name}: {file} never uses it"


def test_every_public_algorithm_has_a_docstring():
    for module, entries in TABLE.items():
        for name in entries:
            assert (getattr(importlib.import_module(module), name).__doc__ or "").strip(), f"{module}.{name}"
