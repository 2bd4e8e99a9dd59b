"""How long, how precise, how often: the paper's Table 8; every number is one override away."""

train = dict(
    output_dir="output",
    seed=0,
    max_iter=40_000,
    device="auto",  # auto, cpu or cuda
    amp=dict(dtype="float32"),  # float32 (as published), bfloat16, float16, auto
    checkpointing=False,  # recompute the backbone's blocks in the backward pass: less memory
    accumulate=1,  # split every batch into that many parts
    # Evaluate an average of the weights: its decay, as 0.999, or dict(decay=0.999, start=2_000).
    ema=None,
    skip_bad_batches=0,  # so many batches with a NaN loss are left out before one ends the run
    init_checkpoint=None,  # a training starts from this file; --eval-only: evaluation.checkpoint
    checkpoint_period=2_000,
    checkpoints_kept=2,
    eval_period=0,  # 0: only after the last iteration
    picture_period=1_000,
    log_period=50,
)
