"""API keys: what they may do, when they end, and how a secret is replaced without a moment in which none works."""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

from cope.core.key_scopes import ALL_SCOPES, KeyScope
from cope.core.money import NanoUSD
from cope.core.records import ApiKey, Project
from tests.contracts.world import SECRET, World
from tests.support import make_key, make_project

DAY_S = 86_400


def digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


async def rotate(world: World, key: ApiKey, secret: str, *, overlap_s: int) -> ApiKey | None:
    return await world.api.rotate_key(
        key.project_id, key.id, new_hash=digest(secret), hint=secret[-4:], overlap_s=overlap_s
    )


async def works(world: World, secret: str) -> bool:
    return await world.api.find_key(digest(secret)) is not None


async def only_key(world: World, project: Project) -> ApiKey:
    (key,) = await world.api.list_keys(project.id)
    return key


async def test_a_key_keeps_its_scopes_and_one_without_restrictions_has_them_all(world: World) -> None:
    project = await world.project()
    await world.api.create_key(make_key(project.id, "sk-whole"))
    narrow = replace(make_key(project.id, "sk-narrow"), scopes=frozenset({KeyScope.READ, KeyScope.FILES}))
    await world.api.create_key(narrow)

    whole, found = await world.api.find_key(digest("sk-whole")), await world.api.find_key(digest("sk-narrow"))

    assert whole is not None
    assert whole.scopes == ALL_SCOPES
    assert found is not None
    assert found.scopes == {KeyScope.READ, KeyScope.FILES}
    assert {key.scopes for key in await world.api.list_keys(project.id)} == {ALL_SCOPES, narrow.scopes}


async def test_a_key_works_until_it_expires_and_is_listed_after(world: World) -> None:
    project = await world.project()
    ends = world.now() + timedelta(hours=1)
    await world.api.create_key(replace(make_key(project.id, "sk-short"), expires_at=ends))

    assert await works(world, "sk-short")
    await world.advance(3601)

    assert not await works(world, "sk-short")
    assert (await only_key(world, project)).expires_at is not None
    assert await rotate(world, await only_key(world, project), "sk-again", overlap_s=0) is None


async def test_a_rotated_key_works_by_both_secrets_for_the_overlap_and_by_the_new_one_after(world: World) -> None:
    project = await world.project()
    key = await world.key(project, secret="sk-old", cap=NanoUSD(77))

    rotated = await rotate(world, key, "sk-new", overlap_s=3600)

    assert rotated is not None
    assert (rotated.id, rotated.hint, rotated.cap, rotated.scopes) == (key.id, "-new", 77, ALL_SCOPES)
    for secret in ("sk-old", "sk-new"):
        found = await world.api.find_key(digest(secret))
        assert found is not None
        assert (found.id, found.cap) == (key.id, 77)
    await world.advance(3601)
    assert not await works(world, "sk-old")
    assert await works(world, "sk-new")


async def test_a_rotation_without_overlap_ends_the_present_secret_at_once(world: World) -> None:
    project = await world.project()
    key = await world.key(project, secret="sk-old")

    assert await rotate(world, key, "sk-new", overlap_s=0)

    assert not await works(world, "sk-old")
    assert await works(world, "sk-new")
    kept = await only_key(world, project)
    assert (kept.previous_hash, kept.previous_until) == (None, None)


async def test_rotating_again_replaces_the_newer_secret_and_keeps_the_one_in_use(world: World) -> None:
    project = await world.project()
    key = await world.key(project, secret="sk-in-use")
    assert await rotate(world, key, "sk-lost", overlap_s=60)

    assert await rotate(world, key, "sk-new", overlap_s=DAY_S)

    assert [await works(world, secret) for secret in ("sk-in-use", "sk-lost", "sk-new")] == [True, False, True]
    await world.advance(DAY_S + 1)
    assert [await works(world, secret) for secret in ("sk-in-use", "sk-new")] == [False, True]


async def test_after_the_overlap_a_rotation_sets_out_from_the_present_secret(world: World) -> None:
    project = await world.project()
    key = await world.key(project, secret="sk-1")
    assert await rotate(world, key, "sk-2", overlap_s=60)
    await world.advance(61)

    assert await rotate(world, key, "sk-3", overlap_s=60)

    assert [await works(world, secret) for secret in ("sk-1", "sk-2", "sk-3")] == [False, True, True]


async def test_a_revocation_ends_both_secrets_and_a_revoked_key_is_not_rotated(world: World) -> None:
    project = await world.project()
    key = await world.key(project, secret="sk-old")
    assert await rotate(world, key, "sk-new", overlap_s=3600)

    assert await world.api.revoke_key(project.id, key.id)

    assert [await works(world, secret) for secret in ("sk-old", "sk-new")] == [False, False]
    assert await rotate(world, key, "sk-third", overlap_s=0) is None


async def test_a_key_can_be_given_another_expiry_as_it_is_rotated(world: World) -> None:
    project = await world.project()
    await world.api.create_key(replace(make_key(project.id, "sk-old"), expires_at=world.now() + timedelta(seconds=100)))
    key = await only_key(world, project)

    longer = world.now() + timedelta(seconds=10_000)
    await world.api.rotate_key(
        project.id, key.id, new_hash=digest("sk-new"), hint="-new", overlap_s=50, expires_at=longer
    )
    await world.advance(101)

    assert await works(world, "sk-new")


async def test_a_stranger_can_not_rotate_a_key(world: World) -> None:
    project, stranger = await world.project(), await world.project()
    key = await world.key(project, secret="sk-mine")

    assert await rotate(world, replace(key, project_id=stranger.id), "sk-theirs", overlap_s=0) is None

    assert await works(world, "sk-mine")
    assert not await works(world, "sk-theirs")


async def test_the_last_use_is_stamped_once_a_minute_at_most(world: World) -> None:
    project = await world.project()
    await world.key(project, secret="sk-used")
    assert (await only_key(world, project)).last_used_at is None

    await works(world, "sk-used")
    first = (await only_key(world, project)).last_used_at
    await works(world, "sk-used")
    assert first is not None
    assert (await only_key(world, project)).last_used_at == first

    await world.advance(61)
    before = (await only_key(world, project)).last_used_at
    await works(world, "sk-used")
    after = (await only_key(world, project)).last_used_at
    assert before is not None
    assert after is not None
    assert after > before


async def test_a_first_secret_that_was_rotated_away_is_not_brought_back_by_the_next_start(world: World) -> None:
    project = make_project("first")
    await world.api.ensure_project(project, make_key(project.id, "sk-boot"), SECRET)
    assert await rotate(world, await only_key(world, project), "sk-new", overlap_s=0)

    await world.api.ensure_project(project, make_key(project.id, "sk-boot"), SECRET)

    assert not await works(world, "sk-boot")
    assert len(await world.api.list_keys(project.id)) == 1


async def test_no_key_of_an_archived_project_works(world: World) -> None:
    project = await world.project()
    await world.key(project, secret="sk-archived")

    await world.api.update_project(project.id, archived=True)

    assert not await works(world, "sk-archived")
