import asyncio, time, json, pytest
from clients import token, somebody
@pytest.mark.parametrize("bodies", [["41"],["1"],["41","1"],["41\x1e1"]])
async def test_close(cluster, http, bodies):
    base=cluster[0].ws+"/socket.io/?EIO=4&transport=polling"
    async with http.get(base) as r: sid=json.loads((await r.text())[1:])["sid"]
    u=base+"&sid="+sid
    async def post(b):
        async with http.post(u,data=b) as r: return r.status, await r.text()
    async def get():
        async with http.get(u) as r: return r.status, await r.text()
    print(await post("40"+json.dumps({"token":token(somebody())})), await get())
    t=time.time()
    g=asyncio.create_task(get())
    await asyncio.sleep(.2)
    for b in bodies:
        print(b, await post(b))
    try: print("GET", await asyncio.wait_for(g,60), time.time()-t)
    except TimeoutError: print("GET still hangs after 60 s")
