"""The studio's web server: which request is answered by which part of it."""

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from coral_jax.methods import METHODS
from coral_jax.recipe import Recipe, of_json, to_json
from coral_jax.runtime.errors import line_of
from coral_jax.runtime.files import check_fields
from coral_jax.runtime.numerics import check_seed
from coral_jax.sitter import Seed
from coral_jax.studio import comparing
from coral_jax.studio.easel import FULL, PREVIEW, SAVED, Easel
from coral_jax.studio.guard import MOST_UPLOAD, SESSION, Guard, hosts_for, read_body, read_object
from coral_jax.studio.learning import Learning, methods_of
from coral_jax.studio.sessions import Session, Sessions
from coral_jax.studio.uploads import begin, keep, state_of

PAGE = Path(__file__).parent / "page"
_SWEEP = 10.0  # seconds between looks for pages that are gone
_REQUEST = "the request"


class Studio:
    """All parts of a studio, and the answers to a page's requests."""

    def __init__(self, runs: Path, photos: Path, weights_dir: str | None, scratch: Path):
        """photos: the folder of photos that are kept; scratch: a folder for what open pages upload."""
        self.runs, self._photos, self._weights_dir = runs, photos, weights_dir
        self.easel = Easel(runs, photos, weights_dir)
        self.learning = Learning(runs, weights_dir)
        self.sessions = Sessions(scratch)
        self._drawing = ThreadPoolExecutor(1, "drawing")  # one after another: two would take twice as long each

    async def draws(self, function: Callable, *arguments: object) -> object:
        """Call a function in the thread that draws."""
        return await asyncio.get_running_loop().run_in_executor(self._drawing, partial(function, *arguments))

    def close(self) -> None:
        """End what runs."""
        self.sessions.close_all()
        self.learning.close()
        self._drawing.shutdown(cancel_futures=True)

    # ---- pages -------------------------------------------------------------------------------------------------------

    async def open(self, request: Request) -> Response:
        """A page opens: its token, and what there is."""
        await read_object(request)
        if SESSION not in request.headers:  # a page from elsewhere cannot send it
            raise HTTPException(403, "open the studio's own page")
        session = await run_in_threadpool(self.sessions.open)
        known = {"domains": self.easel.domains(), "edits": await run_in_threadpool(self.easel.edits)}
        return JSONResponse({"session": session.token} | known)

    async def close_page(self, request: Request) -> Response:
        """A page closes; browsers send this without headers."""
        await run_in_threadpool(self.sessions.close, str((await read_object(request)).get("session")))
        return Response(status_code=204)

    async def alive(self, request: Request, session: Session) -> Response:
        """A page is still there."""
        return Response(status_code=204)

    # ---- edit --------------------------------------------------------------------------------------------------------

    async def shelf(self, request: Request, session: Session) -> Response:
        """The edits that there are."""
        return JSONResponse({"edits": await run_in_threadpool(self.easel.edits)})

    async def domain(self, request: Request, session: Session) -> Response:
        """What a domain is, and by which methods it learns."""
        name = _text(await read_object(request), "domain")
        about = await self.draws(self.easel.about, name)
        return JSONResponse(about | {"methods": methods_of(self.easel.domain(name)), "default_method": next(iter(METHODS))})

    async def face(self, request: Request, session: Session) -> Response:
        """A face of the gallery."""
        content = await read_object(request)
        check_fields(content, {"seed": int, "truncation": int | float}, _REQUEST, "pick a face")
        if not 0 <= content["truncation"] <= 2:
            raise ValueError(f"truncation is {content['truncation']}; give a number from 0 to 2")
        face = Seed(check_seed(content["seed"], "the seed"), float(content["truncation"]))
        return _png(await self.draws(self.easel.face, _text(content, "domain"), face))

    async def draw(self, request: Request, session: Session) -> Response:
        """The picture of a recipe, as a preview, full, or as it is saved."""
        content = await read_object(request)
        size = content.get("size", PREVIEW)
        if size not in (PREVIEW, FULL, SAVED):
            raise ValueError(f"size is {size!r}; give {PREVIEW}, {FULL} or {SAVED}")
        return _png(await self.draws(self.easel.picture, session, _recipe(content), size))

    async def layers(self, request: Request, session: Session) -> Response:
        """The layers of each edit of a recipe."""
        recipe = _recipe(await read_object(request))
        return JSONResponse({"layers": await self.draws(self.easel.layers, session, recipe)})

    async def recipe(self, request: Request, session: Session) -> Response:
        """A recipe as its file has it."""
        return JSONResponse(to_json(_recipe(await read_object(request))))

    # ---- photographs -------------------------------------------------------------------------------------------------

    async def photos(self, request: Request, session: Session) -> Response:
        """The photos of a domain that this page may use."""
        domain = _text(await read_object(request), "domain")
        return JSONResponse({"photos": await run_in_threadpool(self.easel.photos, session, domain)})

    async def upload(self, request: Request, session: Session) -> Response:
        """A photograph: its content is the request's, what it is called and for which domain stands in the address."""
        asked = request.query_params
        content = await read_body(request, MOST_UPLOAD)
        name = (await self.draws(self.easel.domain, asked.get("domain", ""))).name
        given = (asked.get("file", ""), content, name, asked.get("aligned") == "true", self._weights_dir)
        upload = await run_in_threadpool(session.take, partial(begin, session.folder, self._photos, *given))
        return JSONResponse(await run_in_threadpool(state_of, upload, session.folder))

    async def upload_state(self, request: Request, session: Session) -> Response:
        """How far the page's photograph is."""
        if session.upload is None:
            raise ValueError("no photograph was uploaded")
        return JSONResponse(await run_in_threadpool(state_of, session.upload, session.folder))

    async def keep(self, request: Request, session: Session) -> Response:
        """Put a photo of the page into the folder of photos."""
        name = _text(await read_object(request), "name")
        return JSONResponse({"name": await run_in_threadpool(keep, session.folder, name, self._photos)})

    # ---- learn -------------------------------------------------------------------------------------------------------

    async def plan(self, request: Request, session: Session) -> Response:
        """What a training would be."""
        domain, *what, _ = await self._training(request)
        return JSONResponse(await run_in_threadpool(self.learning.plan, domain, *what))

    async def start(self, request: Request, session: Session) -> Response:
        """Begin a training."""
        return JSONResponse({"name": await run_in_threadpool(self.learning.start, *await self._training(request))})

    async def control(self, request: Request, session: Session) -> Response:
        """Pause, stop or go on with a training."""
        content = await read_object(request)
        actions = {"pause": self.learning.pause, "stop": self.learning.stop, "go_on": self.learning.go_on}
        action = _text(content, "action")
        if action not in actions:
            raise ValueError(f"the action is {action!r}; give one of {', '.join(actions)}")
        await run_in_threadpool(actions[action], _text(content, "name"))
        return Response(status_code=204)

    async def trainings(self, request: Request, session: Session) -> Response:
        """All trainings."""
        return JSONResponse({"trainings": await run_in_threadpool(self.learning.trainings)})

    async def live(self, request: Request, session: Session) -> Response:
        """The newest sheet of a training."""
        sheet = await run_in_threadpool(self.learning.live, _text(await read_object(request), "name"))
        return Response(status_code=204) if sheet is None else _png(sheet)

    async def _training(self, request: Request) -> tuple:
        content = await read_object(request)
        steps, seeds = content.get("steps"), content.get("seeds", [])
        if steps is not None and (type(steps) is not int or not 1 <= steps <= 100_000):
            raise ValueError(f"steps is {steps!r}; give a whole number from 1 to 100000, or none")
        if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds) or len(seeds) > 16:
            raise ValueError("seeds are up to 16 whole numbers")
        domain = await self.draws(self.easel.domain, _text(content, "domain"))
        return domain, _text(content, "prompt"), _text(content, "method"), steps, seeds or list(range(8))

    # ---- compare -----------------------------------------------------------------------------------------------------

    async def evaluations(self, request: Request, session: Session) -> Response:
        """The evaluations in the runs folder."""
        return JSONResponse({"evaluations": await run_in_threadpool(comparing.about, self.runs)})

    async def table(self, request: Request, session: Session) -> Response:
        """The table of an evaluation."""
        content = await read_object(request)
        name, methods, prompts = _text(content, "name"), _texts(content, "methods"), _texts(content, "prompts")
        return JSONResponse(await run_in_threadpool(comparing.table, self.runs, name, methods, prompts))

    async def sheet(self, request: Request, session: Session) -> Response:
        """The sheet of a prompt of an evaluation."""
        content = await read_object(request)
        name, methods, prompt = _text(content, "name"), _texts(content, "methods"), _text(content, "prompt")
        return _png(await run_in_threadpool(comparing.sheet, self.runs, name, methods, prompt))


def make_app(runs: Path, photos: Path, weights_dir: str | None, host: str) -> Starlette:
    """The studio as an ASGI application, for `host`; what pages upload lies in a temporary folder that goes with it."""
    scratch = tempfile.TemporaryDirectory(prefix="coral_jax_studio_")
    studio = Studio(runs, photos, weights_dir, Path(scratch.name))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        sweep = asyncio.create_task(_sweep(studio.sessions))
        try:
            yield
        finally:
            sweep.cancel()
            studio.close()
            scratch.cleanup()

    pages = {"shelf": studio.shelf, "domain": studio.domain, "face": studio.face, "draw": studio.draw,
             "layers": studio.layers, "recipe": studio.recipe, "alive": studio.alive, "learn/plan": studio.plan,
             "photos": studio.photos, "photo/upload": studio.upload, "photo/state": studio.upload_state,
             "photo/keep": studio.keep,
             "learn/start": studio.start, "learn/control": studio.control, "learn/trainings": studio.trainings,
             "learn/live": studio.live, "compare/evaluations": studio.evaluations, "compare/table": studio.table,
             "compare/sheet": studio.sheet}  # fmt: skip
    routes = [Route(f"/api/{path}", _of_page(studio, answer), methods=["POST"]) for path, answer in pages.items()]
    routes += [
        Route("/", lambda _: FileResponse(PAGE / "index.html")),
        Route("/api/open", _explained(studio.open), methods=["POST"]),
        Route("/api/close", _explained(studio.close_page), methods=["POST"]),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Guard, hosts=hosts_for(host))], lifespan=lifespan)
    app.state.studio = studio
    return app


def _of_page(studio: Studio, answer: Callable) -> Callable:
    """A handler of requests that only an open page may send."""

    async def handle(request: Request) -> Response:
        session = studio.sessions.get(request.headers.get(SESSION))
        if session is None:
            return JSONResponse({"error": "this page was closed; load it again"}, 410)
        return await answer(request, session)

    return _explained(handle)


def _explained(answer: Callable) -> Callable:
    """A handler whose errors are lines for the user; those of the program are logged with their traceback."""

    async def handle(request: Request) -> Response:
        try:
            return await answer(request)
        except HTTPException as error:
            return JSONResponse({"error": error.detail}, error.status_code)
        except Exception as error:
            line = line_of(error) if isinstance(error, ValueError | OSError | MemoryError | RuntimeError) else None
            if line is None or not isinstance(error, ValueError | MemoryError):
                logging.getLogger(__name__).exception("a request failed")
            if line is None:
                return JSONResponse({"error": "the studio made a mistake; its terminal says more"}, 500)
            return JSONResponse({"error": line}, 400)

    return handle


async def _sweep(sessions: Sessions) -> None:
    while True:
        await asyncio.sleep(_SWEEP)
        await run_in_threadpool(sessions.close_idle)


def _recipe(content: dict) -> Recipe:
    recipe = content.get("recipe")
    if not isinstance(recipe, dict):
        raise ValueError("the request holds no recipe")
    return of_json(recipe, _REQUEST)


def _text(content: dict, name: str) -> str:
    check_fields(content, {name: str}, _REQUEST, "load the page again")
    return content[name]


def _texts(content: dict, name: str) -> list[str]:
    check_fields(content, {name: list}, _REQUEST, "load the page again")
    if not all(isinstance(one, str) for one in content[name]):
        raise ValueError(f"{name} are texts")
    return content[name]


def _png(content: bytes) -> Response:
    return Response(content, media_type="image/png")
