"""Configs and overrides with numbers, names and sections that no run can use."""

import re
from pathlib import Path

import pytest

from recyclelora.config.files import read_config
from recyclelora.config.validation import check_config

ROOT = Path(__file__).parents[2]
WHOLE = "must be a whole number from"
FINITE = "must be a finite number"
BACKBONE = "model.backbone.module.module"
TRAINING = "dataloader.train"

# The override -> a part of the message.
VALUES = [
    # Numbers of the section train.
    ("train.max_iter=0", f"train.max_iter {WHOLE} 1 to 1,000,000,000, got 0"),
    ("train.max_iter=-1", WHOLE),
    ("train.max_iter=1.5", "got 1.5"),
    ("train.max_iter=true", "got True"),
    ("train.max_iter=many", "got 'many'"),
    ("train.max_iter=null", "got None"),
    ("train.max_iter=", "got ''"),
    ("train.max_iter=[1,2]", WHOLE),
    ("train.max_iter=1e400", "got inf"),
    ("train.max_iter=99999999999999999999", WHOLE),
    ("train.max_iter=${nope}", "'nope' not found"),
    ("train.max_iter=${train.max_iter}", "Recursive interpolation"),
    ("train.seed=-1", "train.seed must be a whole number from 0"),
    ("train.seed=4294967296", "train.seed"),
    ("train.seed=1.5", "train.seed"),
    ("train.accumulate=0", "train.accumulate"),
    ("train.accumulate=3", "cannot be split into train.accumulate=3"),
    ("train.checkpoint_period=-1", "train.checkpoint_period"),
    ("train.checkpoint_period=often", "train.checkpoint_period"),
    ("train.checkpoints_kept=0", "train.checkpoints_kept"),
    ("train.checkpoints_kept=1.5", "train.checkpoints_kept"),
    ("train.eval_period=null", "train.eval_period"),
    ("train.picture_period=x", "train.picture_period"),
    ("train.log_period=0", "train.log_period"),
    ("train.ema=2", "train.ema"),
    ("train.ema=often", "train.ema must be a finite number or a section or null"),
    ("train.ema={start:5}", "train.ema must be null, a decay such as 0.999, or dict("),
    ("train.ema={decay:0.9,steps:3}", "train.ema must be null, a decay"),
    ("train.ema={decay:often}", "train.ema.decay must be a number from 0 to 1"),
    ("train.ema={decay:0.9,start:-1}", f"train.ema.start {WHOLE} 0"),
    ("schedule.warmup=-1", f"the schedule's warmup {WHOLE} 0"),
    ("model.learned_queries=false", "the decoder expects queries, got none"),
    ("train.skip_bad_batches=-1", "train.skip_bad_batches"),
    # Names and places.
    ("train.device=cuda:99", "train.device=cuda:99"),
    ("train.device=gpu", "train.device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
    ("train.device=0", "train.device must be text"),
    ("train.amp.dtype=bf16", "train.amp.dtype must be auto or one of"),
    ("train.amp.dtype=null", "train.amp.dtype must be text"),
    ("train.output_dir=''", "train.output_dir must be the path of a folder"),
    ("train.output_dir=2026", "train.output_dir must be text, got 2026"),
    ("train.output_dir=/dev/null", "train.output_dir=/dev/null must be a folder to write to"),
    ("train.output_dir=/dev/null/x", "Not a directory"),
    ("train.output_dir=/proc/none", "train.output_dir=/proc/none must be a folder to write to"),
    ("train.output_dir=" + "a" * 300, "File name too long"),
    ("train.init_checkpoint=3", "train.init_checkpoint must be text or null"),
    ("evaluation.checkpoint=3", "evaluation.checkpoint must be text or null"),
    ("evaluation.checkpoint=a.pth", "applies only to an evaluation: add --eval-only"),
    # Numbers of the data.
    (f"{TRAINING}.total_batch_size=0", f"total_batch_size {WHOLE} 1"),
    (f"{TRAINING}.total_batch_size=1.5", f"{TRAINING}.total_batch_size must be a whole number"),
    (f"{TRAINING}.total_batch_size=100000000", "from 1 to 65,536"),
    (f"{TRAINING}.num_workers=-1", f"num_workers {WHOLE} 0"),
    (f"{TRAINING}.num_workers=100000", "num_workers"),
    (f"{TRAINING}.mapper.crop=0", "crop, in pixels, must be a whole number from 2"),
    (f"{TRAINING}.mapper.crop=1000000", "to 8,192"),
    (f"{TRAINING}.mapper.pad_to_crop=2", "pad_to_crop must be True or False, got 2"),
    (f"{TRAINING}.subset=0", "subset, the number of images to draw"),
    (f"{TRAINING}.subset=abc", f"{TRAINING}.subset must be a whole number or null"),
    ("dataloader.test.night.subset=-2", "subset"),
    (f"{TRAINING}.iterations=3", "set train.max_iter instead"),
    (f"{TRAINING}.dataset=nope", "name of a registered dataset, got 'nope'"),
    (f"{TRAINING}.dataset=[]", "expected at least one training image"),
    (f"{TRAINING}.dataset=3", f"{TRAINING}.dataset must be text or a list of text"),
    (f"{TRAINING}.mapper=null", f"{TRAINING}.mapper must be a LazyCall"),
    # Numbers of the optimiser and the schedule.
    ("optimizer.lr=-1", "the learning rate must be a number from 0"),
    ("optimizer.lr=nan", FINITE),
    ("optimizer.lr=1e400", FINITE),
    ("optimizer.lr=1e308", "the learning rate"),
    ("optimizer.lr=fast", FINITE),
    ("optimizer.weight_decay=-1", "weight decay"),
    ("optimizer.betas=[0.9]", "optimizer.betas must be a list of 2"),
    ("optimizer.betas=[1,2]", "beta"),
    ("optimizer.params.rules={lora:3}", "parameter rule 'lora'"),
    ("optimizer.params.rules={lora:{lr_mult:x}}", "lr_mult of the parameter rule 'lora'"),
    ("schedule.power=-1", "the schedule's power"),
    ("schedule.decay_end=null", f"schedule.decay_end {FINITE}"),
    ("schedule.iterations=0", "the schedule's iterations"),
    # The model's.
    ("model.num_queries=0", f"num_queries {WHOLE} 1"),
    ("model.num_queries=1000000000", "num_queries"),
    ("model.hidden_dim=48", "a multiple of 32"),
    ("model.hidden_dim=0", "conv_dim must be a whole number from 32"),
    ("model.hidden_dim=32000000", "conv_dim must be a whole number from 32 to 8,192"),
    ("model.nheads=3", "must be a multiple of n_heads"),
    ("model.nheads=0", "nheads"),
    ("model.enc_layers=-1", "enc_layers"),
    ("model.dec_layers=1000000", "dec_layers"),
    ("model.enc_dim_feedforward=-1", "enc_dim_feedforward"),
    ("model.num_points=10000000000", "num_points"),
    ("model.num_classes=5", "model.num_classes must be 19"),
    ("model.num_classes=30", "model.num_classes must be 19"),
    ("model.class_weight=-1", "the cost of class must be a number from 0"),
    ("model.no_object_weight=-5", "no_object_weight must be a number from 0"),
    ("model.oversample_ratio=0", "expected oversample_ratio >= 1"),
    ("model.head_seed=-1", "head_seed must be a whole number"),
    ("model.dropout=1.5", "dropout"),
    ("model.backbone.r_main=-1", "r_main must be 0 or more"),
    ("model.backbone.r_main=1.5", "model.backbone.r_main must be a whole number"),
    ("model.backbone.r_main=64", "choose lower ranks"),
    ("model.backbone.alpha=0", "alpha must be a finite number above 0"),
    ("model.backbone.init=qr", "init must be one of rrqr, svd, kaiming"),
    ("model.backbone.sparse_a=1", "sparse_a must be True or False"),
    ("model.backbone.module.weights=dinov2_xxl", "neither a file nor a known name"),
    ("model.backbone.module.weights=dinov2_vitl15", "did you mean 'dinov2_vitl14'"),
    ("model.backbone.module.weights=3", "model.backbone.module.weights must be"),
    (f"{BACKBONE}.patch_size=0", "patch_size"),
    (f"{BACKBONE}.patch_size=14", "needs patch_size=16"),
    (f"{BACKBONE}.embed_dim=65", "embed_dim must be a multiple of num_heads"),
    (f"{BACKBONE}.embed_dim=-64", "embed_dim"),
    (f"{BACKBONE}.num_heads=-1", "num_heads"),
    (f"{BACKBONE}.depth=100000", "depth"),
    (f"{BACKBONE}.img_size=-1", "img_size"),
    (f"{BACKBONE}.img_size=[1,2,3]", "img_size must be one number or (height, width)"),
    (f"{BACKBONE}.out_indices=[1,2]", "out_indices must name four blocks"),
    (f"{BACKBONE}.ffn_layer=moe", "ffn_layer must be one of"),
    # The evaluation's.
    ("evaluation.protocol.long_side=0", "long_side"),
    ("evaluation.protocol.long_side=100000000", "long_side"),
    ("evaluation.protocol.mode=tiles", "mode must be 'slide' or 'whole'"),
    ("evaluation.protocol.crop=-1", "crop"),
    ("evaluation.protocol.stride=1000", "stride"),
    ("evaluation.protocol.batch=0", "batch"),
    ("evaluation.protocol.scales=[]", "scales must be a list of at least one number"),
    ("evaluation.protocol.scales=[0]", "scales must be a number from 0.1 to 8, got 0"),
    ("evaluation.protocol.scales=2", "evaluation.protocol.scales must be a list of a finite"),
    ("evaluation.protocol.flip=1", "evaluation.protocol.flip must be True or False, got 1"),
    ("evaluation.save_predictions=labels", "must be null, train_ids, label_ids or color, got 'la"),
    ("evaluation.save_predictions=[color]", "evaluation.save_predictions must be null"),
    ("evaluation.save_prediction=color", "nearest known key is 'evaluation.save_predictions'"),
    ("evaluation.protocol.argmax=here", "argmax must be 'label' or 'input', got 'here'"),
    # Sections and calls.
    ("train=3", "train must be a section, got 3"),
    ("train.amp=3", "train.amp must be a section"),
    ("model=null", "model must be a LazyCall"),
    ("model.backbone=3", "model.backbone must be a LazyCall that makes a Module, got 3"),
    (f"{BACKBONE}=vit_l", f"{BACKBONE} must be a LazyCall"),
    ("optimizer=null", "optimizer must be a LazyCall"),
    ("schedule=3", "schedule must be a LazyCall"),
    ("dataloader=3", "dataloader must be a section with 'train'"),
    ("dataloader.test=null", "dataloader.test must name at least one domain"),
    ("dataloader.test.night=3", "dataloader.test.night must be a LazyCall"),
    ("evaluation.protocol=papers", "must be one of paper, rein, multi_scale, native, got 'papers'"),
    ("evaluation.protocol=null", "evaluation.protocol must be one of paper, rein"),
    ("evaluation.protocol=[paper]", "cannot apply the override 'evaluation.protocol=[paper]'"),
]
# The syntax of an override.
OVERRIDES = [
    ("train.max_iters=3", "nearest known key is 'train.max_iter'"),
    ("train..max_iter=3", "unknown key 'train..max_iter'"),
    ("train.max_iter.x=3", "unknown key 'train.max_iter.x'"),
    ("~train.max_iter", "the form key=value"),
    ("train.max_iter", "the form key=value"),
    ("+train.more=1", "unknown key"),
    ("model._target_=os.system", "unknown key"),
    ("train.max_iter = 3", "the form key=value"),
    ("train.output_dir='~/runs", "with special characters in quotes"),
    ("train.output_dir=$NOT_SET/runs", "the environment variable NOT_SET, which is not set"),
    ("train.output_dir=~nobody-here/runs", "'nobody-here', an unknown user"),
    ("dataloader.test={}", "dataloader.test must name at least one domain"),
    ("evaluation.protocol={long_side:96}", "evaluation.protocol must be a LazyCall"),
    ("dataloader.test.'night=null", "unknown key"),
    ("dataloader.test.nigt=null", "the nearest known key is 'dataloader.test.night'"),
    ("=3", "the form key=value"),
    ("train.max_iter=[1", "cannot apply the override"),
    ("train.max_iter=" + "[" * 2000 + "]" * 2000, "cannot apply the override"),
    ("train.max_iter=" + "9" * 1_000_000, "at most 5,000 characters, got 1,000,015"),
    (".".join(["deep"] * 900) + "=1", "unknown key"),
    (".".join(["deep"] * 100_000) + "=1", "at most 5,000 characters"),
]


@pytest.mark.parametrize(("given", "words"), VALUES + OVERRIDES, ids=lambda text: text[:60])
def test_override_invalid_gives_one_sentence(given, words, refusal):
    assert words in refusal(given)


def test_override_repeated_key_last_counts(refusal):
    assert "got 'last'" in refusal("train.max_iter=3", "train.max_iter=last")


def test_checkpointing_that_reaches_no_backbone_is_refused(refusal):
    given = ("train.checkpointing=true", f"{BACKBONE}.checkpointing=false")
    assert "train.checkpointing must be False for a backbone without" in refusal(*given)


def test_option_after_override_is_refused(refusal):
    # argparse passes all arguments after the first override as overrides.
    assert "'-r' forward" in refusal("train.max_iter=3", "-r")


# The mistake in a config file -> a part of the message.
FILES = [
    ("a = (", "line 1|SyntaxError"),
    ("import nowhere", "line 1.*No module named 'nowhere'"),
    ("x = 1\n\nx.y", "line 3.*AttributeError"),
    ("train = dict()", "lacks model, optimizer, schedule, dataloader, evaluation"),
    ("raise SystemError('no')", "SystemError: no"),
    ("", "lacks train"),
    (b"\xff\xfe\x00", "does not load"),
    ("train = " + "[" * 500 + "]" * 500, "does not load"),
]


@pytest.mark.parametrize(("content", "words"), FILES, ids=lambda text: repr(text)[:40])
def test_config_file_invalid_gives_one_sentence(content, words, refusal, tmp_path):
    file = tmp_path / "config.py"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    said = refusal(f"--config-file={file}")
    assert str(file) in said
    assert re.search(words, said), said


def test_config_file_missing_or_not_python_is_refused(refusal, tmp_path):
    assert "no config at nowhere.py" in refusal("--config-file=nowhere.py")
    assert "expected a config, got none: give --config-file" in refusal("--config-file=")
    assert f"no config at {tmp_path}" in refusal(f"--config-file={tmp_path}")
    # Detectron2 reads YAML with a loader that executes tags.
    evil = tmp_path / "config.yaml"
    evil.write_text(f"train: !!python/object/apply:os.mkdir ['{tmp_path / 'was_run'}']\n")
    assert "a config must be a Python file (.py)" in refusal(f"--config-file={evil}")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.py")), ids=lambda f: f.name)
def test_config_shipped_is_accepted(file):
    check_config(read_config(str(file)))
