import sys; sys.path.insert(0,'/tmp/proto')
from p import *
from bench.robust.judge import *
from bench.robust.loads import load_of, trace_of, DEVELOP
import bench.robust.judge as J
def loadn(name):
    return trace_of(name,'develop') if isinstance(name,str) else load_of(name)
def one(a):
    name,k=a
    l=loadn(name); t=time.time()
    r=judge(l,P(l.pool,**k),'p'); c=cheapest_fixed(l)
    return (l.name,l.family,l.pool.startup_s,l.pool.objective.percentile,len(l.workload),r.share,r.met,r.gpu_hours,c.gpu_hours,c.met,r.reversals,time.time()-t,l.stationary)
if __name__=='__main__':
    k=json.loads(sys.argv[1]) if len(sys.argv)>1 else {}
    names=pickle.load(open('/tmp/proto/names.pkl','rb'))
    if len(sys.argv)>2: names=[int(x) if x.isdigit() else x for x in sys.argv[2].split(',')]
    rows=[]
    with ProcessPoolExecutor(2) as ex:
        for r in ex.map(one,[(n,k) for n in names]):
            rows.append(r)
            if len(sys.argv)>2 or os.environ.get('V'): print(f"{r[0]:18} L{r[2]:4.0f} p{r[3]:.0f} n{r[4]:7d} {'met ' if r[6] else 'MISS'} {r[5]:.2%} {r[7]:8.2f} h fixed {r[8]:8.2f} ({'met' if r[9] else 'not'}) x{r[7]/r[8]:.2f} {r[10]:5.1f} turns {r[11]:.0f}s",flush=True)
    ok=[r for r in rows if r[9]]
    st=[r for r in ok if r[12]]
    g=lambda q: math.exp(np.mean([math.log(r[7]/r[8]) for r in q])) if q else 0
    print(k,f"met {sum(r[6] for r in ok)}/{len(ok)} cost x{g(ok):.3f} stationary met {sum(r[6] for r in st)}/{len(st)} x{g(st):.3f} turns max {max([r[10] for r in st] or [0]):.1f} all median {np.median([r[10] for r in ok]):.1f}; missed:", [f"{r[0]} {r[5]:.1%}/p{r[3]:.0f}" for r in ok if not r[6]])
