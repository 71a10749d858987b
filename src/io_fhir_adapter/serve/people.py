"""The people at the service's pages, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass

from io_fhir_adapter.config import ROLES, Role

__all__ = ["ROLES", "Person", "Role"]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is signed in.

    Attributes:
        account: The account's name; ``oidc:`` and the subject for somebody whom a provider vouches for.
        name: The name for people.
        roles: What they may do.
        one_time: Whether they signed in with a password that another gave them, and have to change it first.
    """

    account: str
    name: str
    roles: frozenset[Role]
    one_time: bool = False

    def has(self, *roles: Role) -> bool:
        """Whether they have at least one of these roles; any role at all where none is named."""
        return bool(self.roles & set(roles)) if roles else bool(self.roles)

    @property
    def role_text(self) -> str:
        """The roles by comma, as the audit notes them."""
        return ",".join(role for role in ROLES if role in self.roles)
