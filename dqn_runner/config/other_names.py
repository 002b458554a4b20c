"""Names that other programs give to settings, and what to write here instead."""

from __future__ import annotations

_LOGGERS = "logging=[console,file,jsonl,wandb]"
_MEANINGS: dict[str, tuple[str, ...]] = {
    "trainer.max_steps=N": (
        *(
            "total_timesteps",
            "timesteps",
            "n_timesteps",
            "max_timesteps",
            "total_steps",
            "num_steps",
            "steps",
        ),
        *("frames", "num_frames", "total_frames", "budget"),
    ),
    "trainer.max_episodes=N": ("episodes", "n_episodes", "num_episodes", "total_episodes", "epochs"),
    "agent.replay.capacity=N": ("buffer_size", "replay_size", "memory_size", "buffer_capacity", "buffer"),
    "agent.exploration.schedule.steps=N, in env steps": (
        *("exploration_fraction", "eps_decay", "epsilon_decay", "exploration_steps", "decay_steps"),
    ),
    "agent.exploration.schedule.start=E": (
        *("exploration_initial_eps", "start_e", "eps_start", "epsilon_start", "initial_epsilon"),
    ),
    "agent.exploration.schedule.end=E": (
        *(
            "exploration_final_eps",
            "end_e",
            "eps_end",
            "epsilon_end",
            "final_epsilon",
            "min_epsilon",
            "eps_min",
        ),
    ),
    "agent.exploration.schedule.start=E and .end=E, or agent/exploration/schedule=constant": (
        *("epsilon", "eps", "exploration_rate"),
    ),
    "agent.target_update_every=N": (
        *(
            "target_update_interval",
            "target_network_frequency",
            "target_update_frequency",
            "target_update_freq",
        ),
        *("target_update", "target_network_update_freq", "sync_every"),
    ),
    "agent.train_every=N": (
        "train_freq",
        "train_frequency",
        "update_frequency",
        "update_every",
        "update_freq",
    ),
    "agent/network=mlp agent.network.hidden=[64,64]": (
        *(
            "hidden",
            "hidden_size",
            "hidden_sizes",
            "hidden_dim",
            "hidden_layers",
            "net_arch",
            "policy_kwargs",
        ),
        *("layers", "units", "fc_units"),
    ),
    "agent/network=NAME": ("policy", "model", "net", "architecture"),
    "agent=NAME": ("algo", "algorithm", "agent_type"),
    "agent=double_dqn": ("double", "double_q", "double_dqn"),
    "agent/replay=prioritized": ("prioritized", "per", "prioritized_replay"),
    "agent/replay=NAME and agent.replay.KEY=VALUE": ("replay_buffer_class", "replay_buffer_kwargs"),
    "agent.replay.alpha=A, with agent/replay=prioritized": ("prioritized_replay_alpha", "per_alpha"),
    "agent.replay.beta=B, with agent/replay=prioritized": ("prioritized_replay_beta", "per_beta"),
    "agent.replay.eps=E, with agent/replay=prioritized": ("prioritized_replay_eps", "per_eps"),
    "agent.loss.num_atoms=N, with agent=c51": ("n_atoms", "atoms"),
    "agent.loss.num_quantiles=N, with agent=qr_dqn": ("n_quantiles", "quantiles"),
    "env.num_envs=N": ("n_envs", "envs", "num_environments"),
    "env=gym env.id=ID": ("env_id", "env_name", "environment", "gym_id", "task"),
    "trainer.max_steps_per_episode=N": (
        "max_episode_steps",
        "max_ep_len",
        "episode_length",
        "max_episode_length",
    ),
    "trainer.eval_frequency=N": ("eval_freq", "eval_interval", "eval_every", "evaluate_every"),
    "trainer.eval_episodes=N": ("n_eval_episodes", "num_eval_episodes"),
    "trainer.checkpoint_frequency=N": (
        *("save_freq", "save_interval", "save_every", "checkpoint_freq", "checkpoint_interval"),
    ),
    "trainer.log_frequency=N": ("log_interval", "log_freq", "log_every"),
    "trainer.target_return=R": ("target_reward", "stop_reward", "reward_goal", "solved_at"),
    "env.reward_clip=R": ("clip_reward", "clip_rewards", "reward_clipping"),
    "agent.max_grad_norm=R": ("grad_clip", "gradient_clip", "clip_grad", "clip_grad_norm"),
    "agent.gamma=G": ("discount", "discount_factor"),
    "agent.n_step=N": ("n_steps", "nstep", "multi_step"),
    "hydra.run.dir=DIR": (
        "output",
        "output_dir",
        "out",
        "log_dir",
        "save_dir",
        "run_dir",
        "save_path",
        "exp_name",
        "run_name",
        "dir",
        "o",
    ),
    _LOGGERS: ("wandb", "use_wandb", "track", "wandb_project", "wandb_project_name", "wandb_entity"),
    "logging=[console,file,jsonl,tensorboard]": ("tensorboard", "tensorboard_log", "use_tensorboard"),
    "mode=eval checkpoint=PATH": ("eval_only", "evaluate", "eval", "test", "play", "enjoy"),
    "mode=eval checkpoint=PATH evaluator.video=true": ("render", "render_mode", "video", "capture_video"),
    "experiment=NAME, or --config-dir=DIR experiment=NAME for a file of your own in DIR/experiment": (
        *("config", "config_file", "yaml", "conf_file"),
    ),
    "resume=PATH": ("load", "load_path", "restore", "continue", "trained_agent"),
    "-m seed=0,1,2": ("seeds", "n_seeds", "num_seeds"),
    "agent.precision=bfloat16": ("amp", "bf16", "fp16", "autocast", "mixed_precision", "half"),
    "device=cuda": ("gpu", "gpus", "cuda", "use_cuda"),
    "threads=N": ("num_threads", "n_threads", "torch_threads", "cpus", "num_workers"),
    "hydra.sweeper.n_trials=N, with search=dqn": ("n_trials", "trials", "optimize"),
}
_HERE = {name: text for text, names in _MEANINGS.items() for name in names}
_WITHOUT = {
    "hf_entity": "nothing is uploaded; mode=publish writes a folder that can be",
    "upload_model": "nothing is uploaded; mode=publish writes a folder that can be",
    "optimize_memory_usage": "the frames of a stack are always stored once; leave it out",
    "save_model": "a run always saves its checkpoints; leave it out",
    "save_replay_buffer": "checkpoints always contain the replay; leave it out",
    "stats_window_size": "means are always over 100 episodes; leave it out",
    "torch_deterministic": "only deterministic kernels are used; leave it out",
    "weight_decay": "the optimizers have no weight decay; leave it out",
    "verbose": "logging=[file,jsonl] runs without output on the console",
}
FLAGS = {"e": "episodes", "o": "output", "s": "seed", "n": "n_timesteps", "f": "output"}
"""Short options of other programs."""


def what_to_write(name: str) -> str | None:
    """What to write for a setting that has another name here; None if the name is not known."""
    name = name.lower().replace("-", "_")
    return f"write {_HERE[name]}" if name in _HERE else _WITHOUT.get(name)
