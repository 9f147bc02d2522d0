"""What differs between the two hawkBits that the stand-in can be: one frozen value each, no behaviour.

Every field was seen on the running server of that version. Not here: what both do alike.
"""

from __future__ import annotations

from dataclasses import dataclass

_REPO = "hawkbit.server.error.repo"


@dataclass(frozen=True, slots=True)
class Dialect:
    """One version's manners; the field names say what a client can tell them apart by."""

    version: str
    charset: str  # appended to every Content-Type
    code_exists: str
    code_missing: str
    code_forbidden: str
    missing_carries_info: bool
    violation_class: str
    violation_prefix: str
    html_violation: str
    bare_errors_name_path: bool
    wrong_password_realm: str
    unsupported_media_names_accepted: bool
    closing_statuses: frozenset[int]
    firewall_status: int
    empty_status: int  # of a success without body
    href_safe: str  # left unencoded in links
    everything: str  # the permission that grants all others
    all_means_everything: bool
    read_metadata: str
    write_metadata: str
    metadata_answers_body: bool
    metadata_put_creates: bool
    metadata_null_allowed: bool
    metadata_quota_status: int
    metadata_entity: str
    query_created_by: bool
    query_dotted_keys: bool
    query_errors_explain: bool
    list_has_poll_status: bool
    config_strings_are_flags: bool
    config_batch: bool
    checks_address: bool
    has_userinfo: bool
    id_header: str
    authority_header: str
    authority_lists: bool


M7 = Dialect(
    version="0.3.0M7",
    charset="",
    code_exists=f"{_REPO}.entitiyAlreayExists",
    code_missing=f"{_REPO}.entitiyNotFound",
    code_forbidden="hawkbit.server.error.insufficientpermission",
    missing_carries_info=False,
    violation_class="javax.validation.ConstraintViolationException",
    violation_prefix="",
    html_violation="create.creates[0].controllerId may have unsafe html content.",
    bare_errors_name_path=True,
    wrong_password_realm="Realm",  # noqa: S106 - a realm's name
    unsupported_media_names_accepted=False,
    closing_statuses=frozenset({500}),
    firewall_status=500,
    empty_status=200,
    href_safe="=,:;+/!$&'()*@",
    everything="ALL",
    all_means_everything=True,
    read_metadata="READ_REPOSITORY",
    write_metadata="UPDATE_REPOSITORY",
    metadata_answers_body=True,
    metadata_put_creates=False,
    metadata_null_allowed=True,
    metadata_quota_status=403,
    metadata_entity="TargetMetadata",
    query_created_by=False,
    query_dotted_keys=False,
    query_errors_explain=True,
    list_has_poll_status=False,
    config_strings_are_flags=False,
    config_batch=False,
    checks_address=True,
    has_userinfo=False,
    id_header="X-Ssl-Client-Cn",
    authority_header="X-Ssl-Issuer-Hash",
    authority_lists=False,
)

V1 = Dialect(
    version="1.0.4",
    charset=";charset=UTF-8",
    code_exists=f"{_REPO}.entityAlreadyExists",
    code_missing=f"{_REPO}.entityNotFound",
    code_forbidden="hawkbit.server.error.insufficientPermission",
    missing_carries_info=True,
    violation_class="jakarta.validation.ConstraintViolationException",
    violation_prefix="create.create[0].",
    html_violation="create.create[0].controllerId Invalid characters in string.",
    bare_errors_name_path=False,
    wrong_password_realm="hawkBit",  # noqa: S106 - a realm's name
    unsupported_media_names_accepted=True,
    closing_statuses=frozenset({400, 500}),
    firewall_status=400,
    empty_status=204,
    href_safe="",
    everything="ROLE_TENANT_ADMIN",
    all_means_everything=False,
    read_metadata="READ_TARGET",
    write_metadata="UPDATE_TARGET",
    metadata_answers_body=False,
    metadata_put_creates=True,
    metadata_null_allowed=False,
    metadata_quota_status=429,
    metadata_entity="Metadata",
    query_created_by=True,
    query_dotted_keys=True,
    query_errors_explain=False,
    list_has_poll_status=True,
    config_strings_are_flags=True,
    config_batch=True,
    checks_address=False,
    has_userinfo=True,
    id_header="X-Controller-Id",
    authority_header="X-Authority",
    authority_lists=True,
)

DIALECTS = {dialect.version: dialect for dialect in (M7, V1)}
