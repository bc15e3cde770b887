"""Every setting, read once: command line over environment over TOML file over the defaults below.

A default exists here and nowhere else; types and defaults that the pipeline shares come from `pipeline.options`.
Times are seconds and are settings so that tests can scale them.
Environment: `HUNYUAN_CUSTOM_` + name, sections joined by two underscores (`HUNYUAN_CUSTOM_API__PORT=9000`).
"""

import ipaddress
import re
import socket
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    IPvAnyNetwork,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from pipeline import options
from server.logs import LogFormat

ENV_PREFIX = "HUNYUAN_CUSTOM_"
CONFIGS = Path(__file__).parent / "configs"
if not CONFIGS.is_dir():  # a checkout: configs/ stands beside the packages; in the wheel it is inside this one
    CONFIGS = Path(__file__).parent.parent / "configs"


MemoryPlan: TypeAlias = options.MemoryPlan
MemoryPlanChoice: TypeAlias = options.MemoryPlanChoice
MEMORY_PLANS: Final = options.MEMORY_PLANS

RENDERER: Final = "server.generator.child.renderer:HunyuanCustomRenderer"
WORKER_ID_LENGTH: Final = 64  # as the column of the database has it
_RENDERER_OF_0_1: Final = "server.renderer:HunyuanCustomRenderer"  # configuration files of version 0.1 may name it


class Section(BaseModel):
    """A group of settings: frozen, and strict about its keys."""

    # JSON has no infinity: the generator, which gets some sections as JSON, would find null there.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ApiSettings(Section):
    """The HTTP API."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="0 takes a free port")
    public_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/?#]+[^?#]*$",
        description="base of all URLs in answers; else the Host header",
    )
    max_body_bytes: int = Field(default=30 * 2**20, gt=0, description="room for a 20 MB image in base64")
    max_header_bytes: int = Field(default=16 * 2**10, gt=0, description="request line and headers together")
    header_timeout_s: float = Field(default=10.0, gt=0, description="a connection must send its headers within this")
    body_timeout_s: float = Field(default=60.0, gt=0, description="a body must arrive within this")
    body_idle_s: float = Field(default=10.0, gt=0, description="a body may pause for this long")
    keep_alive_s: float = Field(
        default=75.0, gt=0, description="a connection without a request ends after this; longer than a client may pause"
    )
    write_timeout_s: float = Field(default=120.0, gt=0, description="a reader must take half a megabyte within this")
    body_memory_bytes: int = Field(default=64 * 2**20, gt=0, description="bodies in memory at once; others wait")
    body_memory_per_owner_bytes: int = Field(default=32 * 2**20, gt=0, description="of them, bodies of one owner")
    keys_reload_s: float = Field(default=2.0, gt=0, description="a new or revoked key is known after this")
    proxy_owner: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9._-]{1,64})?$",
        description="whose calls those through /api/fal/proxy are that show no key; empty asks for a key",
    )
    metrics_token: SecretStr = Field(
        default=SecretStr(""), description="bearer token that reads /metrics and nothing else; 16 characters or more"
    )
    deadline_poll_s: float = Field(default=0.5, gt=0, description="how often overdue start deadlines are looked for")
    max_connections: int = Field(default=4000, gt=0, description="more are answered 503")
    allowed_hosts: tuple[str, ...] = Field(default=(), description="further Host names of a server without keys")
    shutdown_grace_s: float = Field(default=10.0, gt=0, description="answers under way end within this time")
    tail_poll_s: float = Field(default=0.05, gt=0, description="how often streams and sync runs look for news")
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(default=(), description="whose X-Forwarded-* are believed")
    cors_origins: tuple[str, ...] = Field(default=("local",), description='origins, "local" (any port here) or "*"')
    tls_cert: FilePath | None = Field(default=None, description="PEM certificate (chain); turns TLS on")
    tls_key: FilePath | None = Field(default=None, description="its PEM key, if that is not in the same file")

    @field_validator("metrics_token")
    @classmethod
    def _hard_to_guess(cls, token: SecretStr) -> SecretStr:
        if token.get_secret_value() and not re.fullmatch(r"[!-~]{16,}", token.get_secret_value()):
            raise ValueError("empty, or 16 or more visible ASCII characters")
        return token

    @model_validator(mode="after")
    def _key_needs_certificate(self) -> Self:
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key is set and tls_cert is not")
        return self


class JobSettings(Section):
    """The life of a job."""

    engine_poll_s: float = Field(default=0.2, gt=0, description="how often the worker asks for the next job")
    cancel_poll_s: float = Field(default=0.25, gt=0, description="how often a running job looks for a cancel")
    max_attempts: int = Field(
        default=3, ge=1, description="runs of one job whose generator or worker is lost or silent"
    )
    reconcile_s: float = Field(
        default=30.0, gt=0, description="how often open jobs are compared with the workflows of DBOS"
    )
    shutdown_grace_s: float = Field(default=0.0, ge=0, description="a stopping worker lets its job run for so long")
    min_free_bytes: int = Field(default=2 * 10**9, ge=0, description="less free disk than this refuses new jobs")
    prepare_concurrency: int = Field(default=4, ge=1, description="images fetched at once")
    publish_concurrency: int = Field(default=8, ge=1, description="videos stored at once")
    storage_retry_s: float = Field(default=600.0, ge=0, description="a store that is away is tried for so long")
    storage_retry_delay_s: float = Field(default=1.0, gt=0, description="between the first tries; then longer")
    heartbeat_s: float = Field(default=2.0, gt=0, description="how often a worker says that it lives")
    heartbeat_stale_s: float = Field(default=20.0, gt=0, description="a worker silent for longer counts as gone")


class RetentionSettings(Section):
    """How long finished work is kept; 0 keeps it forever."""

    media_s: float = Field(default=7 * 86400.0, ge=0, description="images and videos of a finished request")
    records_s: float = Field(default=30 * 86400.0, ge=0, description="its status, log and result; ends its media too")
    scratch_s: float = Field(
        default=86400.0, ge=3600, description="what killed processes left, and DBOS's own rows; an hour at least"
    )
    sweep_s: float = Field(default=60.0, gt=0, description="how often expired things are removed")


class GeneratorSettings(Section):
    """The process that owns the GPU."""

    model: str = Field(default="demo", description='folder of converted weights, or "demo"')
    renderer: str = Field(default=RENDERER, description="module:class in the child")
    device: str = Field(default="cuda", description="torch device")
    replicas: int = Field(
        default=1, ge=1, description="workers of `serve` or `worker` on this machine, each with `ranks` GPUs of its own"
    )
    ranks: int = Field(default=1, ge=1, description="GPUs that work on one job together")
    dtype: options.Dtype = Field(
        default=options.DTYPE, description="of the transformer; encoders and VAE are then fp16 (on a CPU fp32)"
    )
    attention: options.AttentionName = Field(
        default=options.ATTENTION, description="auto: the fastest that is exact; fa3_fp8 and sage change the picture"
    )
    cpu_linear: options.CpuLinear = Field(
        default=options.CPU_LINEAR,
        description="of the transformer's Linear layers, in float32 on a CPU; onednn: twice as fast on an AMD EPYC",
    )
    torch_threads: int = Field(default=0, ge=0, description="0 leaves it to torch")
    render_divisor: int = Field(default=1, ge=1, description="delivered side / rendered side (demo: 4)")
    step_cache: Literal["none", options.StepCacheName] = Field(
        default="none",
        description="reuse blocks between steps: as the reference does, or where the first changes little",
    )
    step_cache_threshold: float = Field(
        default=options.STEP_CACHE_THRESHOLD, ge=0, description='change below which "first_block" reuses; 0 never does'
    )
    load_timeout_s: float = Field(default=1800.0, gt=0, description="a model that takes longer is given up")
    first_block_timeout_s: float = Field(default=900.0, gt=0, description="until the first transformer block is done")
    stall_timeout_s: float = Field(default=120.0, gt=0, description="later silence for longer kills the generator")
    idle_unload_s: float = Field(default=0.0, ge=0, description="idle for so long frees the GPU; 0 keeps the model")
    checkpoint_every_steps: int = Field(default=1, ge=0, description="0 writes no checkpoints")
    memory_plan: MemoryPlanChoice = Field(
        default="auto", description="what stays on the GPU; auto: all that fits; OOM takes the next, until a restart"
    )
    fused: options.Fused = Field(
        default=options.FUSED, description="passes over memory, of blocks and VAE; auto compiles them on a GPU"
    )
    mlp_chunk: int = Field(
        default=options.MLP_CHUNK,
        ge=0,
        description="tokens that go through an MLP at once; 0 is all; fewer need less memory",
    )
    cancel_grace_s: float = Field(default=30.0, gt=0, description="then a cancelled generator is killed")
    restart_delay_s: float = Field(default=1.0, ge=0, description="pause before a dead generator is replaced")

    @field_validator("renderer")
    @classmethod
    def _where_it_is_now(cls, name: str) -> str:
        return RENDERER if name == _RENDERER_OF_0_1 else name

    @property
    def step_cache_or_none(self) -> options.StepCacheName | None:
        """As the pipeline takes it."""
        return None if self.step_cache == "none" else self.step_cache


class PromptSettings(Section):
    """What becomes of a prompt before its video is made."""

    expansion: bool = Field(default=True, description="false leaves every prompt as it is, whatever a request says")
    expansion_limit_s: float = Field(default=20.0, gt=0, description="after this the prompt is used as it is")


class VideoSettings(Section):
    """The MP4 encoder, and what is seen of a video before it is there."""

    crf: int = Field(default=options.CRF, ge=0, le=51, description="x264 quality, lower is better")
    encoder_threads: int = Field(default=2, ge=1, description="of ffmpeg; pinned, for the same bytes everywhere")
    preview_every_s: float = Field(
        default=options.PREVIEW_EVERY_S, ge=0, description="at most one small preview in so long; 0 makes none"
    )


class ImageSettings(Section):
    """What is accepted as an identity image."""

    max_bytes: int = Field(default=20 * 2**20, gt=0, description="of the file")
    min_side: int = Field(default=64, ge=1, description="pixels")
    max_side: int = Field(default=8192, ge=1, description="pixels")
    max_pixels: int = Field(default=8192 * 6144, ge=1, description="width times height; phones take 50 megapixels")
    connect_timeout_s: float = Field(default=5.0, gt=0, description="of a download")
    total_timeout_s: float = Field(default=30.0, gt=0, description="of a download, redirects included")
    decode_memory_bytes: int = Field(default=1536 * 2**20, gt=0, description="address space of a decoding process")
    decode_timeout_s: float = Field(default=20.0, gt=0, description="of a decoding process, wall and processor time")
    decode_concurrency: int = Field(default=2, ge=1, description="decoding processes at once")
    alpha: options.Alpha = Field(default=options.ALPHA, description='"drop" is what the reference does')
    background: options.Background = Field(
        default=options.BACKGROUND, description='"white" cuts the subject out, as the reference\'s own examples are'
    )
    segmenter: str = Field(
        default="models/segmenter", description="folder of the model that cuts out; without it the background is kept"
    )


class SafetySettings(Section):
    """What is refused with `content_policy_violation`: prompts, identity images, finished videos."""

    model: str = Field(
        default=options.BUNDLED_CLASSIFIER,
        min_length=1,
        description='"bundled", a folder with an image classifier (`weights prepare` makes models/safety), or "none": '
        "nothing is checked, the prompt neither",
    )
    required: bool = Field(default=False, description="check also what asks not to be (enable_safety_checker: false)")
    image_threshold: float = Field(
        default=options.EXPLICIT_SCORE, gt=0, le=1, description="an identity image is refused from this score"
    )
    frame_threshold: float = Field(
        default=options.EXPLICIT_SCORE, gt=0, le=1, description="a video is refused from this score of one frame"
    )

    ask_language_model: bool = Field(default=True, description="LLaVA also reads the prompt; the demo's does not")

    @property
    def off(self) -> bool:
        """Whether nothing is checked."""
        return self.model == "none"

    @model_validator(mode="after")
    def _required_needs_model(self) -> Self:
        if self.required and self.off:
            raise ValueError('required is true and model is "none"')
        return self


class LimitSettings(Section):
    """How much one owner, and all together, may ask for. Reading (status, result, files) is never limited."""

    max_queue: int = Field(default=1000, ge=1, description="waiting requests")
    max_queue_per_owner: int = Field(
        default=50, ge=1, description="waiting requests of one owner; the owner `local` is bound by max_queue alone"
    )
    posts_per_s: float = Field(default=50.0, gt=0, description="submits and uploads of one owner, sustained")
    posts_burst: int = Field(default=200, ge=1, description="submits and uploads of one owner at once")
    upload_bytes_per_owner: int = Field(default=2**30, gt=0, description="uploads of one owner that are kept")
    upload_ttl_s: float = Field(default=7 * 86400.0, gt=0, description="an upload is deleted after this")


class WebhookSettings(Section):
    """Delivery of results to `fal_webhook`."""

    timeout_s: float = Field(default=15.0, gt=0, description="of the first attempt")
    retry_timeout_s: float = Field(default=120.0, gt=0, description="of the later ones")
    retry_delays_s: tuple[float, ...] = Field(
        default=(5, 15, 30, 60, 120, 300, 600, 1200, 2400), description="pauses before the later attempts"
    )
    jitter: float = Field(default=0.2, ge=0, lt=1, description="each delay is longer or shorter by up to this share")
    poll_s: float = Field(default=0.5, gt=0, description="how often the worker looks for due deliveries")
    concurrency: int = Field(default=16, ge=1, description="deliveries at once")
    per_owner: int = Field(default=4, ge=1, description="of them, deliveries of one owner")
    per_host: int = Field(default=2, ge=1, description="of them, deliveries of one owner to one host")


class ObjectStorageSettings(Section):
    """How to reach the bucket of `storage_url`."""

    endpoint: str = Field(default="", description="of an S3-compatible store; empty is AWS")
    public_endpoint: str = Field(default="", description="the same store as clients reach it; empty is `endpoint`")
    region: str = Field(default="us-east-1", description="of the bucket")
    access_key_id: str = Field(default="", description="empty: the machine's own role")
    secret_access_key: SecretStr = Field(default=SecretStr(""), description="never written to a log")
    link_ttl_s: float = Field(default=900.0, gt=0, description="how long a link to the store can be used")
    timeout_s: float = Field(default=60.0, gt=0, description="of one HTTP request")


class LogSettings(Section):
    """What the processes of the server write to stderr."""

    format: LogFormat = Field(default="text", description="json writes one object a line, for log collectors")


class Settings(BaseSettings):
    """All settings of one deployment, frozen."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=ENV_PREFIX, env_nested_delimiter="__", toml_file=None
    )

    data_dir: Path = Field(default=Path("data"), description="database, files, work in progress, the demo model")
    database_url: str = Field(
        default="",
        pattern=r"^(|sqlite:///.+|postgres(ql)?(\+psycopg)?://.+)$",
        description="PostgreSQL for a cluster; empty is an SQLite file in data_dir",
    )
    storage_url: str = Field(
        default="",
        pattern=r"^(|s3://[^/?#]+[^?#]*)$",
        description="s3://bucket/prefix, this database's alone; empty is data_dir",
    )
    object_storage: ObjectStorageSettings = ObjectStorageSettings()
    worker_id: str = Field(
        default="local",
        pattern=rf"^[A-Za-z0-9._-]{{1,{WORKER_ID_LENGTH}}}$",
        description=(
            'must survive a restart; one per worker; "{hostname}" in it is the machine\'s name; '
            "further replicas add -1, -2, ..."
        ),
    )
    api: ApiSettings = ApiSettings()
    jobs: JobSettings = JobSettings()
    retention: RetentionSettings = RetentionSettings()
    generator: GeneratorSettings = GeneratorSettings()
    prompt: PromptSettings = PromptSettings()
    video: VideoSettings = VideoSettings()
    image: ImageSettings = ImageSettings()
    safety: SafetySettings = SafetySettings()
    limits: LimitSettings = LimitSettings()
    webhooks: WebhookSettings = WebhookSettings()
    log: LogSettings = LogSettings()
    allow_private_networks: tuple[IPvAnyNetwork, ...] = Field(
        default=(), description="networks that image_url and webhooks may reach although they are private; any port"
    )

    @field_validator("worker_id", mode="before")
    @classmethod
    def _of_this_machine(cls, worker_id: object) -> object:
        return worker_id.replace("{hostname}", socket.gethostname()) if isinstance(worker_id, str) else worker_id

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence, first wins."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on that address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_reached_from_elsewhere(api: ApiSettings) -> bool:
    """Whether others than this machine's users may call, so that keys are needed.

    Behind a reverse proxy the listener is on loopback and others reach it all the same: a public name or a trusted
    proxy in the settings shows that.
    """
    public = urlsplit(api.public_base_url or "").hostname
    is_local = public is None or is_loopback(public) or public.endswith(".localhost")
    return not is_loopback(api.host) or not is_local or bool(api.trusted_proxies)
