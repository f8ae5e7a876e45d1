import sys
from bench.robust.judge import *
from bench.robust.loads import load_of, trace_of
from tierserve.simulate.policies.ours import Ours
n=sys.argv[1]; l=trace_of(n,'develop') if not n.isdigit() else load_of(int(n)); every=int(sys.argv[2])
print(l.about,'fixed',cheapest_fixed(l).replicas, 'work',work_of(l.pool))
p=Ours(l.pool); rows=[]
class Q:
    interval_s=p.interval_s
    def decide(s,seen):
        x=p.decide(seen); d=p.state.last; rows.append((seen.t,x,seen.ready,seen.queued,d.caution,d.stabilization_window_s,d.peakedness,d.reason)); return x
f=run_of(l,Q()); g=l.pool.objective
r=row_of(l,'x',f,0); print('share',r.share,'hours',r.gpu_hours,'ttft ok',(f.ttft_s<=g.ttft_s).mean(),'resp ok',(f.response_s<=g.response_s).mean(),'maxwait',p.settings.max_wait_s,'svc',p.settings.service_s,'slots',l.pool.slots)
c,good=per_minute(l,f); last=-1
for r in rows:
    m=int(r[0]//60)
    if (m!=last and m<len(c) and m%every==0) or (rows.index(r) and r[1]>rows[rows.index(r)-1][1]): print(f"{m:4d} arr {c[m]:6.0f} good {good[m]:.2f} target {r[1]} ready {r[2]} q {r[3]:.0f} c{r[4]:.1f} w{r[5]:.0f} z{r[6]:.1f} {r[7][:150]}")
    last=m
