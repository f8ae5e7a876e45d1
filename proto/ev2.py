import sys,os,time,math,pickle,json
import numpy as np
from concurrent.futures import ProcessPoolExecutor
from bench.robust.judge import *
from bench.robust.loads import load_of, trace_of
from tierserve.simulate.policies.ours import Ours
def loadn(n): return trace_of(n,'develop') if isinstance(n,str) else load_of(n)
def one(n):
    l=loadn(n); t=time.time(); r=judge(l,Ours(l.pool),'p'); w=time.time()-t; c=cheapest_fixed(l)
    return (l.name,l.family,l.pool.startup_s,l.pool.objective.percentile,len(l.workload),r.share,r.met,r.gpu_hours,c.gpu_hours,c.met,r.reversals,w,l.stationary,l.daily)
if __name__=='__main__':
    names=pickle.load(open('/tmp/proto/names.pkl','rb'))
    if len(sys.argv)>2: names=[int(x) if x.isdigit() else x for x in sys.argv[2].split(',')]
    rows=[]
    with ProcessPoolExecutor(int(sys.argv[1])) as ex:
        for r in ex.map(one,names):
            rows.append(r)
            print(f"{r[0]:18} L{r[2]:4.0f} p{r[3]:.0f} n{r[4]:7d} {'met ' if r[6] else 'MISS'} {r[5]:.2%} {r[7]:8.2f} h fixed {r[8]:8.2f} ({'met' if r[9] else 'not'}) x{r[7]/r[8]:.2f} {r[10]:5.1f} turns {r[11]:.0f}s",flush=True)
    ok=[r for r in rows if r[9]]; st=[r for r in ok if r[12]]; da=[r for r in ok if r[13]]
    g=lambda q: math.exp(np.mean([math.log(r[7]/r[8]) for r in q])) if q else 0
    print(f"met {sum(r[6] for r in ok)}/{len(ok)} x{g(ok):.3f} stationary {sum(r[6] for r in st)}/{len(st)} x{g(st):.3f} daily x{g(da):.3f} turns max {max([r[10] for r in st] or [0]):.1f} med {np.median([r[10] for r in ok]):.1f}; missed:", [f"{r[0]} {r[5]:.1%}/p{r[3]:.0f}" for r in ok if not r[6]])
