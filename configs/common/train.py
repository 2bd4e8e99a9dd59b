"""Length, precision and periods of a training, as in the paper's Table 8."""

train = dict(
    output_dir="output",
    seed=0,
    max_iter=40_000,
    device="auto",  # auto, cpu or cuda
    amp=dict(dtype="float32"),  # float32 (as published), bfloat16, float16, auto
    checkpointing=False,  # recompute the backbone's blocks in the backward pass to save memory
    compile=False,  # torch.compile of the backbone's blocks; equal up to rounding
    accumulate=1,  # number of parts of a batch
    # Decay of an average of the weights to evaluate: 0.999, or dict(decay=0.999, start=2_000).
    ema=None,
    skip_bad_batches=0,  # number of batches with a NaN loss to skip before the run ends
    init_checkpoint=None,  # initial weights of a training; for --eval-only: evaluation.checkpoint
    checkpoint_period=2_000,
    checkpoints_kept=2,
    eval_period=0,  # 0 evaluates only after the last iteration
    picture_period=1_000,
    log_period=50,
)
