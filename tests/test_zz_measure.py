import time, asyncio, contextlib
from urllib.parse import urlsplit, parse_qs, quote
from tests.test_kill import *
class Proxy:
    def __init__(self, path): self.path=path; self.open=asyncio.Event(); self.open.set(); self.writers=[]; self.tasks=set()
    async def __call__(self, r, w):
        up_r, up_w = await asyncio.open_unix_connection(self.path)
        async def copy(a,b):
            try:
                while data := await a.read(65536):
                    await self.open.wait()
                    b.write(data); await b.drain()
            except OSError: pass
            finally: b.close()
        await asyncio.gather(copy(r,up_w), copy(up_r,w))
async def test_m(database, sandbox, backend, tmp_path):
    parts=urlsplit(database); q=parse_qs(parts.query)
    proxy=Proxy(f"{q['host'][0]}/.s.PGSQL.{q['port'][0]}")
    server=await asyncio.start_server(proxy,"127.0.0.1",0)
    port=server.sockets[0].getsockname()[1]
    url=f"postgresql://{parts.username}:{quote(parts.password)}@127.0.0.1:{port}{parts.path}"
    plan=Plan.of(url,sandbox,backend)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http, running(plan, tmp_path/"l") as p:
        caller=Caller(plan,http,sandbox); await caller.save_paynow(); link=await caller.order("A")
        t0=time.perf_counter()
        async def timed(what, coro):
            try: a=await coro; s=a and a.status
            except Exception as e: s=type(e).__name__
            print(f"{what}: {s} after {time.perf_counter()-t0:.1f}")
        proxy.open.clear()
        pages=[asyncio.create_task(timed(n, caller.call("GET",u))) for n,u in [("readyz",f"{plan.internal}/readyz"),("readyz pub",f"{plan.public}/readyz"),("show",caller.path(f"/payments/{link['id']}")),("page",link["page_url"]),("settings",caller.path("/payment-settings"))]+[(f"more{i}",link["page_url"]) for i in range(8)]]
        await asyncio.wait(pages, timeout=58)
        print("opening", time.perf_counter()-t0)
        proxy.open.set()
        await asyncio.gather(*pages)
        t0=time.perf_counter()
        for _ in range(3): await timed("show after", caller.call("GET",caller.path(f"/payments/{link['id']}")))
    server.close()
