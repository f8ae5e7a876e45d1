import sys; sys.path.insert(0,'/tmp/proto')
from ev import *
l=loadn(sys.argv[2]) if not sys.argv[2].isdigit() else loadn(int(sys.argv[2])); print(l.about, 'fixed', cheapest_fixed(l).replicas)
p=P(l.pool,**json.loads(sys.argv[1])); rows=[]
class Q:
    interval_s=p.interval_s
    def decide(s,seen):
        n=p.decide(seen); rows.append((seen.t,n,seen.ready,seen.queued,p.level,p.ans,p.late,p.why)); return n
f=run_of(l,Q()); g=l.pool.objective
print('ttft ok',(f.ttft_s<=g.ttft_s).mean(),'resp ok',(f.response_s<=g.response_s).mean(), 'slack',p.slack,'TN',p.TN,'T1',p.T1,'n',p.n)
c,good=per_minute(l,f)
import collections
last=-1
for r in rows:
    if int(r[0]//60)!=last:
        last=int(r[0]//60)
        if last<len(c) and last%int(sys.argv[3])==0: print(f"{last:4d} min arr {c[last]:6.0f} good {good[last]:.2f} target {r[1]} ready {r[2]} q {r[3]:.0f} lvl {r[4]:.1f} {r[5]:.0f} {r[6]:.0f} {r[7]}")
