import pytest

from app.config.settings import Settings, SettingsError, describe, specs
from app.config.types import Rate, Url

GOOD = {
    "AUTH_JWT_SECRET": "s" * 32,
    "AUTH_JWT_ISSUER": "master",
    "INTERNAL_API_SECRET": "i" * 32,
    "DATABASE_URL": "postgresql://chat:hunter2@db/chat",
    "REDIS_URL": "redis://:hunter2@redis/0",
}


def problems(**changed):
    env = {name: value for name, value in {**GOOD, **changed}.items() if value is not None}
    with pytest.raises(SettingsError) as raised:
        Settings.read(env)
    return raised.value.problems


def test_every_missing_setting_is_named_at_once():
    with pytest.raises(SettingsError) as raised:
        Settings.read({})
    assert [line.split(":")[0] for line in raised.value.problems] == list(GOOD)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUTH_JWT_SECRET", ""),
        ("AUTH_JWT_SECRET_PREVIOUS", ""),
        ("AUTH_JWT_ISSUER", ""),
        ("DATABASE_URL", "mysql://db/chat"),
        ("DATABASE_URL", "postgresql://db:port/chat"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "redis://redis:99999"),
        ("HTTP_PORT", "0"),
        ("HTTP_PORT", "65536"),
        ("HTTP_PORT", "four thousand"),
        ("ALLOWED_ORIGINS", "*"),
        ("ALLOWED_ORIGINS", "https://a.example, *"),
        ("ALLOWED_ORIGINS", "a.example"),
        ("ALLOWED_ORIGINS", "https://a.example/path"),
        ("RATE_LIMIT_SEND", "10"),
        ("RATE_LIMIT_SEND", "10/s"),
        ("RATE_LIMIT_SEND", "10/d,5"),
        ("RATE_LIMIT_SEND", "0/s,5"),
        ("RATE_LIMIT_SEND", "10/s,0"),
        ("WEBHOOK_RETRY_SCHEDULE", "5s,,30s"),
        ("WEBHOOK_TIMEOUT", "0"),
        ("DRAIN_TIMEOUT", "soon"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
        ("MAX_CONTENT_LENGTH", "-1"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_wrong(name, value):
    assert [line for line in problems(**{name: value}) if line.startswith(f"{name}: must ")]


def test_several_bad_settings_are_all_named():
    named = {line.split(":")[0] for line in problems(HTTP_PORT="x", WS_PORT="y", AUTH_JWT_ISSUER=None)}
    assert named == {"HTTP_PORT", "WS_PORT", "AUTH_JWT_ISSUER"}


def test_a_webhook_url_needs_a_secret():
    assert problems(WEBHOOK_URL="http://master/hooks")[0].startswith("WEBHOOK_SECRET:")


def test_defaults_and_values_are_read():
    settings = Settings.read(
        {
            **GOOD,
            "ALLOWED_ORIGINS": "https://A.example, http://localhost:3000/",
            "RATE_LIMIT_CREATE": "30/m,10",
            "RATE_LIMIT_READ": "0",
            "DRAIN_TIMEOUT": "1500ms",
        }
    )
    assert settings.http_port == 4000
    assert settings.allowed_origins == ("https://a.example", "http://localhost:3000")
    assert settings.rate_limit_create == Rate(0.5, 10)
    assert settings.rate_limit_read == Rate(0, 0)
    assert settings.rate_limit_send == Rate(10, 30)
    assert settings.drain_timeout == 1.5
    assert settings.webhook_retry_schedule == (5, 30, 120, 600, 1800, 7200, 21600, 43200, 86400)
    assert settings.webhook_url is None


def test_a_secret_is_read_from_its_file(tmp_path):
    file = tmp_path / "secret"
    file.write_text("from-a-file-" + "x" * 32 + "\n")
    env = {**GOOD, "AUTH_JWT_SECRET_FILE": str(file)}
    del env["AUTH_JWT_SECRET"]
    assert Settings.read(env).auth_jwt_secret.reveal() == "from-a-file-" + "x" * 32


def test_a_secret_set_twice_or_in_no_file_is_named(tmp_path):
    assert "set twice" in problems(AUTH_JWT_SECRET_FILE=str(tmp_path / "a"))[0]
    missing = problems(AUTH_JWT_SECRET=None, AUTH_JWT_SECRET_FILE=str(tmp_path / "nowhere"))[0]
    assert missing.startswith("AUTH_JWT_SECRET: cannot read the file")


def test_short_secrets_are_told_and_accepted():
    assert Settings.read({**GOOD, "INTERNAL_API_SECRET": "short"}).weak_secrets() == ["INTERNAL_API_SECRET"]


def test_no_secret_shows_in_a_repr():
    shown = repr(Settings.read({**GOOD, "WEBHOOK_URL": "http://u:hunter2@m/", "WEBHOOK_SECRET": "w" * 40}))
    for secret in ("s" * 32, "i" * 32, "w" * 40, "hunter2"):
        assert secret not in shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@h/d",
        "postgresql://u:hun/ter2@h/d",
        "postgresql://u:hun@ter2@h/d",
        "redis://hunter2@h",
        "postgresql://h/d?user=u&password=hunter2&sslmode=require",
    ],
)
def test_no_address_shows_its_password(url):
    shown = repr(Url(url))
    assert "hun" not in shown
    assert "ter2" not in shown
    assert shown.endswith(("@h/d", "@h", "&sslmode=require"))


def test_the_description_lists_all_and_masks_secrets():
    lines = {line.name: line for line in describe({**GOOD, "HTTP_PORT": "x"})}
    assert list(lines) == list(specs())
    assert lines["AUTH_JWT_SECRET"].value == "********"
    assert lines["DATABASE_URL"].value == "postgresql://********@db/chat"
    assert lines["REDIS_URL"].value == "redis://********@redis/0"
    assert lines["HTTP_PORT"].value.startswith("BAD: must be a whole number")
    assert lines["WS_PORT"].source == "default"
    assert lines["AUTH_JWT_ISSUER"].source == "environment"


def test_the_description_tells_what_is_missing():
    lines = {line.name: line for line in describe({})}
    assert lines["DATABASE_URL"].value == "BAD: is missing (or set DATABASE_URL_FILE)"
