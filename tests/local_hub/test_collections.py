"""Collections, through all of HfApi's methods for them and the npm client's."""

from client_processes import Clients

from local_hub.testing import Hub

MEMBERS = {"alice": "write", "bob": "read"}


def test_a_collection_from_its_creation_to_its_end(hub: Hub, clients: Clients) -> None:
    """Create, fill, note, reorder, rename, list and delete; what is there already is found again."""

    def client(url):
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()

        def code(call, *arguments, **more):
            try:
                call(*arguments, **more)
                return 200
            except HfHubHTTPError as error:
                return error.response.status_code

        def items(slug):
            return [[item.item_id, item.item_type, item.position, item.note] for item in api.get_collection(slug).items]

        found = {}
        for name in ("one", "two"):
            api.create_repo(f"alice/{name}")
        api.create_repo("alice/data", repo_type="dataset")
        made = api.create_collection("LoRA: FLAN-T5!", description="Adapters", namespace="acme")
        found["slug"], id = made.slug.rsplit("-", 1)
        found["made"] = [len(id), made.url == f"{url}/collections/{made.slug}", made.owner["name"], made.owner["type"]]
        found["taken"] = code(api.create_collection, "LoRA: FLAN-T5!", namespace="acme")
        again = api.create_collection("LoRA: FLAN-T5!", namespace="acme", exists_ok=True)
        found["again"] = again.slug == made.slug and again.description == "Adapters"
        added = api.add_collection_item(made.slug, "alice/one", "model", note="the first")
        found["added"] = [[item.item_id, item.note] for item in added.items]
        found["twice"] = code(api.add_collection_item, made.slug, "alice/one", "model")
        again = api.add_collection_item(made.slug, "alice/one", "model", note="other", exists_ok=True)
        found["kept"] = again.items[0].note
        found["missing"] = code(api.add_collection_item, made.slug, "alice/none", "model")
        found["long"] = code(api.add_collection_item, made.slug, "alice/two", "model", note="n" * 501)
        api.add_collection_item(made.slug, "alice/data", "dataset")
        api.add_collection_item(made.slug, "2210.11416", "paper")
        last = api.add_collection_item(made.slug, "alice/two", "model").items[-1]
        api.update_collection_item(made.slug, last.item_object_id, position=0, note="the best")
        found["items"] = items(made.slug)
        paper = next(item for item in api.get_collection(made.slug).items if item.item_type == "paper")
        api.delete_collection_item(made.slug, paper.item_object_id)
        api.delete_collection_item(made.slug, paper.item_object_id, missing_ok=True)
        found["gone"] = code(api.delete_collection_item, made.slug, paper.item_object_id)
        api.move_repo("alice/one", "alice/uno")
        api.delete_repo("alice/data", repo_type="dataset")
        found["left"] = items(made.slug)
        renamed = api.update_collection_metadata(made.slug, title="Adapters", description="All", theme="pink")
        found["renamed"] = [renamed.slug == f"acme/adapters-{id}", renamed.theme, renamed.description, renamed.title]
        found["old_slug"] = api.get_collection(made.slug).slug == renamed.slug
        found["short_slug"] = api.get_collection("acme/adapters").slug == renamed.slug
        api.create_collection("Second", namespace="acme")
        api.update_collection_metadata(api.create_collection("Third", namespace="acme").slug, position=0)
        api.create_collection("Mine")
        found["listed"] = [item.title for item in api.list_collections(owner="acme")]
        found["limited"] = [item.title for item in api.list_collections(owner=["acme", "alice"], limit=2)]
        found["holding"] = [item.title for item in api.list_collections(item="models/alice/two")]
        api.delete_collection(renamed.slug)
        api.delete_collection(renamed.slug, missing_ok=True)
        found["deleted"] = [code(api.delete_collection, renamed.slug), code(api.get_collection, renamed.slug)]
        found["still"] = api.repo_exists("alice/two")
        return found

    hub.add_org("acme", MEMBERS)
    assert clients(client, hub.url) == {
        "slug": "acme/lora-flan-t5",
        "made": [24, True, "acme", "org"],
        "taken": 409,
        "again": True,
        "added": [["alice/one", "the first"]],
        "twice": 409,
        "kept": "the first",
        "missing": 404,
        "long": 400,
        "items": [
            ["alice/two", "model", 0, "the best"],
            ["alice/one", "model", 1, "the first"],
            ["alice/data", "dataset", 2, None],
            ["2210.11416", "paper", 3, None],
        ],
        "gone": 404,
        "left": [["alice/two", "model", 0, "the best"], ["alice/uno", "model", 1, "the first"]],
        "renamed": [True, "pink", "All", "Adapters"],
        "old_slug": True,
        "short_slug": True,
        "listed": ["Third", "Adapters", "Second"],
        "limited": ["Third", "Adapters"],
        "holding": ["Adapters"],
        "deleted": [404, 404],
        "still": True,
    }


def test_who_may_see_and_change_them(hub: Hub, clients: Clients) -> None:
    """Members see a private collection, those who write change it; private repositories stay hidden in a public one."""

    def make():
        from huggingface_hub import HfApi

        api = HfApi()
        slugs = []
        for title in ("Open", "Closed"):
            slug = api.create_collection(title, namespace="acme", private=title == "Closed").slug
            for name in ("public", "secret"):
                api.create_repo(f"acme/{name}", private=name == "secret", exist_ok=True)
                api.add_collection_item(slug, f"acme/{name}", "model")
            slugs.append(slug)
        return slugs

    def see(slugs):
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()

        def outcome(call, *arguments, **more):
            try:
                return call(*arguments, **more)
            except HfHubHTTPError as error:
                return error.response.status_code

        def items(slug):
            return [item.item_id for item in api.get_collection(slug).items]

        add = [outcome(api.add_collection_item, slug, "2210.11416", "paper") for slug in slugs]
        create = outcome(api.create_collection, "New", namespace="acme")
        listed = sorted(item.title for item in api.list_collections(owner="acme"))
        return [[outcome(items, slug) for slug in slugs], listed, *add, create]

    hub.add_org("acme", MEMBERS)
    slugs = clients(make)
    both = ["acme/public", "acme/secret"]
    assert clients(see, slugs, user="bob") == [[both, both], ["Closed", "Open"], 403, 403, 403]
    assert clients(see, slugs, user="carol") == [[["acme/public"], 404], ["Open"], 403, 404, 403]
    assert clients(see, slugs, user=None) == [[["acme/public"], 404], ["Open"], 401, 404, 401]
    assert clients(see, slugs, role="read")[2:] == [403, 403, 403]
