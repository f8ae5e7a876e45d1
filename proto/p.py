import bisect, math, json, os, sys, time, pickle
import numpy as np
from concurrent.futures import ProcessPoolExecutor
from tierserve.simulate.types import Snapshot
GRID=[float(k) for k in range(1,26)]
while GRID[-1]<3000: GRID.append(math.ceil(GRID[-1]*1.04))
GRID=np.array(GRID)
K=dict(trust=0.5,hold=6.0,least=600.0,up=1.5,down=0.95,calm=0.5,most=30.0,blocks=20.0,guard=1.0,cap=1.02,prior=1.0)
class P:
    def __init__(s,pool,**k):
        s.k={**K,**k}; s.pool=pool; L=s.L=max(pool.startup_s,1.0)
        s.interval_s=max(L/30,1.0)
        i,o=pool.input_tokens,pool.output_tokens; g=pool.objective
        s.n=pool.slots; s.T1=pool.profile.service_time(1,i,o); s.TN=pool.profile.service_time(s.n,i,o)
        s.pre=pool.profile.prefill(s.n,i,o)
        s.slack=max(min(g.ttft_s-s.pre, g.response_s-s.TN),0.1*s.TN)
        s.miss=1-g.percentile/100
        s.w=s.TN/s.n
        s.x=np.zeros(GRID.size); s.blocks=[]; s.block_s=max(L,s.k['least']/6)
        s.t=[];s.A=[]
        s.last=None; s.recs=[]; s.level=1.0; s.ans=s.late=0.0; s.mark=None
        H=s.H=L+s.slack+(s.TN if s.k.get('addS',1) else 0); s.W=[H/4,H/2,H,2*H,4*H]
        s.err=np.zeros(2*len(s.W)); s.wt=np.zeros(2*len(s.W)); s.pend=[]
        s.best=2
        s.why=''
    def step(s,dt,a):
        slots=GRID*s.n; come=s.x+a
        batch=np.clip(come/GRID,1,s.n); T=s.T1+(s.TN-s.T1)/max(s.n-1,1)*(batch-1)
        full=slots/s.TN
        leave=np.where(come>slots,np.minimum(full*dt,come),come*-np.expm1(-dt/T))
        after=come-leave
        w0=np.maximum(s.x-slots,0)/full; w1=np.maximum(after-slots,0)/full
        lo=np.minimum(w0,w1); hi=np.maximum(w0,w1)
        late=np.clip((hi-s.slack)/np.maximum(hi-lo,1e-9),0,1)*a
        s.x=after; return late
    def count(s,t0,t1):
        return s.at(t1)-s.at(t0)
    def at(s,x):
        T,A=s.t,s.A
        j=bisect.bisect_right(T,x)
        if j<=0: return A[0]
        if j>=len(T): return A[-1]
        return A[j-1]+(A[j]-A[j-1])*(x-T[j-1])/(T[j]-T[j-1])
    def predictions(s,t):
        out=[]; L=s.L; h=t-s.t[0]
        for W in s.W:
            W=min(W,max(h,s.interval_s))
            out.append(s.count(t-W,t)/W)
        for W in s.W:
            if h<W*0.99: out.append(out[len(out)-len(s.W)]); continue
            a=s.count(t-W,t-W/2)/(W/2); b=s.count(t-W/2,t)/(W/2)
            slope=(b-a)/(W/2)
            out.append(max(b+slope*(W/4+min(L,W)),0))
        return out
    def decide(s,seen):
        t=seen.t; k=s.k; L=s.L
        if s.last is None:
            s.last=seen; s.t=[t]; s.A=[seen.arrivals]; s.recs=[(t,seen.target)]; s.mark=(t,seen.completions,seen.late); return seen.target
        dt=t-s.last.t; a=seen.arrivals-s.last.arrivals
        s.t.append(t); s.A.append(seen.arrivals)
        if s.t[0]<t-10*s.H: s.t=s.t[len(s.t)//2:]; s.A=s.A[len(s.A)//2:]
        late=s.step(dt,a)
        if s.blocks and t-s.blocks[-1][0]<s.block_s:
            b=s.blocks[-1]; b[1]+=a; b[2]=b[2]+late
        else: s.blocks.append([t,a,late])
        # caution
        m=s.mark
        if t-m[0]>=s.block_s:
            keep=0.5**(1/k['blocks']); da=seen.completions-m[1]; dl=seen.late-m[2]
            s.ans=s.ans*keep+da; s.late=s.late*keep+dl; s.mark=(t,seen.completions,seen.late)
            used=(s.late+50*s.miss)/(s.miss*(s.ans+100))
            if used>1 and dl>s.miss*da: s.level=min(s.level*k['up'],k['most'])
            elif used<k['calm']: s.level=max(s.level*k['down'],1.0)
        M=max(k['least'],k['hold']*L)*s.level
        due=len(s.blocks[-1])
        s.blocks=[b for b in s.blocks if b[0]>=t-max(k['least'],k['hold']*L)*k['most']-s.block_s]
        sel=[b for b in s.blocks if b[0]>=t-M]
        tot=sum(b[1] for b in sel); R=0
        if tot>0:
            lt=np.add.reduce([b[2] for b in sel]); good=lt<=s.miss*k['trust']/s.level*tot
            R=int(GRID[np.argmax(good)]) if good.any() else 0
        # predictors
        p=s.predictions(t); s.pend.append((t,p))
        while s.pend and s.pend[0][0]<=t-L:
            t0,q=s.pend.pop(0); seenr=s.count(t0,t)/(t-t0)
            kp=0.5**(dt/(10*L)); e=np.array([ (q1-seenr) if q1>seenr else k['under']*(seenr-q1) for q1 in q]) if 'under' in k else np.abs(np.array(q)-seenr)
            s.err=s.err*kp+e*dt; s.wt=s.wt*kp+dt
        if s.wt[0]>L*k['prior']:
            best=int(np.argmin(s.err))
            if s.err[best]<0.95*s.err[s.best]: s.best=best
        lam=p[s.best]; mae=s.err[s.best]/s.wt[s.best] if s.wt[s.best]>0 else 0
        lamg=lam+k['guard']*mae+ math.sqrt(max(lam,1e-9)/s.W[s.best%len(s.W)])
        load=lamg*s.w
        low=math.ceil(load*k['cap']-1e-9)
        # backlog that the replicas there and starting will not have drained when one asked now serves
        have=max(seen.target,1)
        B=seen.queued*s.w
        left=B-(have-lam*s.w)*L if have>0 else B
        # ready until then
        ready=seen.ready
        extra=0
        if left>0 and B>s.slack*max(ready,1): extra=math.ceil(lam*s.w+ B/max(L,s.slack))
        up=max(R,low,extra)
        s.recs=[r for r in s.recs if r[0]>=t-M and r[1]>up]+[(t,up)]
        n=max(up,min(seen.target,s.recs[0][1])); n=max(n,1)
        if n!=seen.target: s.why=f"{n} R{R} low{low} extra{extra} lam{lam:.2f} best{s.best} mae{mae:.2f} lvl{s.level:.1f}"
        s.last=seen
        return n
